//! Converts settings from Python, a mapping of names to plain values as built by `llamacpu.families`, to settings in Rust.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyMapping, PyString};

use llamacpu_model::{Config, RopeConfig, Value, Values};

use crate::errors::raise;
use crate::outside::attached;

/// Builds the configuration of a model. A missing or unknown setting, or one of the wrong type, raises a `ModelError`
/// that names it.
pub(crate) fn config_from(mapping: &Bound<'_, PyMapping>) -> PyResult<Config> {
    settings_from(mapping, Config::take)
}

/// Builds the rotation settings alone.
pub(crate) fn rope_config_from(mapping: &Bound<'_, PyMapping>) -> PyResult<RopeConfig> {
    settings_from(mapping, RopeConfig::take)
}

pub(crate) fn settings_from<T>(
    mapping: &Bound<'_, PyMapping>,
    take: impl FnOnce(&mut Values) -> Result<T, llamacpu_model::Error>,
) -> PyResult<T> {
    let py = mapping.py();
    let mut values = BTreeMap::new();
    for item in mapping.items()? {
        let (name, value): (String, Bound<'_, PyAny>) = item.extract()?;
        let value = value_from(&name, &value)?;
        values.insert(name, value);
    }
    let mut values = Values::new(values);
    let settings = attached(py, || take(&mut values))?;
    attached(py, || values.finish())?;
    Ok(settings)
}

/// Converts a plain value; NumPy scalars count as numbers too.
fn value_from(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Value> {
    if let Ok(flag) = value.cast::<PyBool>() {
        return Ok(Value::Flag(flag.is_true()));
    }
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Value::Text(text.to_str()?.to_owned()));
    }
    if let Ok(number) = value.extract() {
        return Ok(Value::Integer(number));
    }
    if let Ok(number) = value.extract() {
        return Ok(Value::Number(number));
    }
    // Nested lists are not valid settings, so nothing here recurses further than one call.
    let entry = |entry: Bound<'_, PyAny>| {
        if let Ok(flag) = entry.cast::<PyBool>() {
            return Ok(Value::Flag(flag.is_true()));
        }
        if let Ok(text) = entry.cast::<PyString>() {
            return Ok(Value::Text(text.to_str()?.to_owned()));
        }
        match entry.extract() {
            Ok(number) => Ok(Value::Integer(number)),
            Err(_) => Ok(Value::Number(entry.extract()?)),
        }
    };
    let entries = value.try_iter().and_then(|entries| entries.map(|item| entry(item?)).collect());
    entries.map(Value::List).map_err(|error| {
        let message = format!(
            "the configuration's {name:?} is {value}; expected a number, text, true or false, or a list of such ({})",
            error.value(value.py())
        );
        raise(value.py(), "ModelError", &message)
    })
}
