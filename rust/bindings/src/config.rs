//! Settings from Python: a mapping of names to plain values, as `llamacpu.families` makes it, to the settings of Rust.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyBool, PyMapping, PyString};

use llamacpu_model::{Config, RopeConfig, Value, Values};

use crate::errors::raise;
use crate::outside::attached;

/// The configuration of a model. A setting that is missing, unknown or of another type is a `ModelError` that names it.
pub(crate) fn config_from(mapping: &Bound<'_, PyMapping>) -> PyResult<Config> {
    settings_from(mapping, Config::take)
}

/// The settings of the rotation alone.
pub(crate) fn rope_config_from(mapping: &Bound<'_, PyMapping>) -> PyResult<RopeConfig> {
    settings_from(mapping, RopeConfig::take)
}

fn settings_from<T>(
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

/// A plain value: numbers of NumPy are numbers too.
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
    // Lists of lists mean nothing, so that nothing here goes deeper than one call.
    let entry = |entry: Bound<'_, PyAny>| {
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
            "the configuration's {name:?} is {value}; expected a number, text, true or false, or a list of numbers or text ({})",
            error.value(value.py())
        );
        raise(value.py(), "ModelError", &message)
    })
}
