//! Functions of `llamacpu._native` for drafters: steps over rows in place of tokens, and what a model lends to a drafter.

use std::sync::Arc;

use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_model::{RowStep, RowUse};

use crate::interrupt::CancelToken;
use crate::lists::{array, copy_of, token_ids};
use crate::model::Model;
use crate::outside::{attached, detached};
use crate::session::Session;

/// More rows than this may take longer than Python's main thread may be unresponsive.
const LONG: usize = 64;

/// Logits, rows × vocabulary, and states before and after the final norm, 2 × rows × width.
type LogitsAndStates<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray3<f32>>);

/// Continues a session by rows, float32[rows, width]: "causal", "together" or "keys". Returns the logits (no columns
/// without an output matrix) and the states of the last `wanted` rows before and after the final norm.
#[pyfunction]
#[pyo3(signature = (model, session, rows, purpose, wanted, cancel=None))]
fn step_rows<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    session: &Bound<'py, Session>,
    rows: &Bound<'py, PyArray2<f32>>,
    purpose: &str,
    wanted: usize,
    cancel: Option<&Bound<'py, CancelToken>>,
) -> PyResult<LogitsAndStates<'py>> {
    let purpose = match purpose {
        "causal" => RowUse::Causal,
        "together" => RowUse::Together,
        "keys" => RowUse::Keys,
        other => {
            return Err(PyValueError::new_err(format!(
                "purpose is {other:?}; expected \"causal\", \"together\" or \"keys\""
            )));
        }
    };
    let model = model.get().get(py)?;
    let session = session.get().inner();
    let rows = numbers(rows)?;
    let config = model.config();
    let (width, vocabulary) = (config.embedding_length, if config.output { config.vocab_size } else { 0 });
    let long = rows.len() > LONG * width;
    let output = detached(py, cancel.map(Bound::get), long, move |interrupted| {
        model.step_rows(&RowStep { session: &session, rows: &rows, purpose, wanted }, Some(interrupted))
    })?;
    let logits = array(py, output.logits)?.reshape([wanted, vocabulary])?;
    Ok((logits, array(py, output.hidden)?.reshape([2, wanted, width])?))
}

/// What a pair leads to: logits and a state.
type LogitsAndState<'py> = (Bound<'py, PyArray1<f32>>, Bound<'py, PyArray1<f32>>);

/// Runs a pair, float32[1, 2 × state], whose layers see the keys and values of a session of another model.
#[pyfunction]
#[pyo3(signature = (model, lender, pair, cancel=None))]
fn step_lent<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    lender: &Bound<'py, Session>,
    pair: &Bound<'py, PyArray2<f32>>,
    cancel: Option<&Bound<'py, CancelToken>>,
) -> PyResult<LogitsAndState<'py>> {
    let model = model.get().get(py)?;
    let (lender, pair) = (lender.get().inner(), numbers(pair)?);
    let output = detached(py, cancel.map(Bound::get), false, move |interrupted| {
        model.step_lent(&lender, pair, Some(interrupted))
    })?;
    Ok((array(py, output.logits)?, array(py, output.state)?))
}

/// Whether a session of another model holds all that a pair would see.
#[pyfunction]
fn can_borrow(py: Python<'_>, model: &Bound<'_, Model>, lender: &Bound<'_, Session>) -> PyResult<bool> {
    let (model, lender) = (model.get().get(py)?, lender.get().inner());
    attached(py, || model.can_borrow(&lender))
}

/// The rows that a drafter makes of states of the model it drafts for: float32[rows, states] -> float32[rows, width].
#[pyfunction]
fn fuse_states<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    states: &Bound<'py, PyArray2<f32>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let model = model.get().get(py)?;
    let width = model.config().embedding_length;
    let states = numbers(states)?;
    let long = states.len() > LONG * width;
    let rows = detached(py, None, long, move |interrupted| model.fuse(states, Some(interrupted)))?;
    let count = rows.len() / width;
    array(py, rows)?.reshape([count, width])
}

/// The embeddings of tokens as the file has them: float32[tokens, width].
#[pyfunction]
fn token_embeddings<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    tokens: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let model = model.get().get(py)?;
    let (tokens, width) = (token_ids(tokens)?, model.config().embedding_length);
    let rows = attached(py, || model.embeddings(&tokens))?;
    array(py, rows)?.reshape([tokens.len(), width])
}

/// Products of states with the output matrix, without bias, scale or cap: float32[rows, width] -> float32[rows, vocabulary].
#[pyfunction]
fn output_products<'py>(
    py: Python<'py>,
    model: &Bound<'py, Model>,
    states: &Bound<'py, PyArray2<f32>>,
) -> PyResult<Bound<'py, PyArray2<f32>>> {
    let model: Arc<_> = model.get().get(py)?;
    let vocabulary = model.config().vocab_size;
    let states = numbers(states)?;
    let logits = detached(py, None, false, move |interrupted| model.output_products(&states, Some(interrupted)))?;
    let count = logits.len() / vocabulary;
    array(py, logits)?.reshape([count, vocabulary])
}

fn numbers(rows: &Bound<'_, PyArray2<f32>>) -> PyResult<Vec<f32>> {
    let rows = rows.readonly();
    copy_of(rows.as_slice().map_err(|_| PyValueError::new_err("the rows must be contiguous"))?)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(step_rows, module)?)?;
    module.add_function(wrap_pyfunction!(step_lent, module)?)?;
    module.add_function(wrap_pyfunction!(can_borrow, module)?)?;
    module.add_function(wrap_pyfunction!(fuse_states, module)?)?;
    module.add_function(wrap_pyfunction!(token_embeddings, module)?)?;
    module.add_function(wrap_pyfunction!(output_products, module)?)
}
