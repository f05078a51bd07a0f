//! The parts of sampling that look at the whole vocabulary, on NumPy arrays.
#![expect(clippy::needless_pass_by_value, reason = "extracted arguments are passed by value")]

use std::borrow::Cow;

use llamacpu_kernels::Error;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::processes::Published;
use llamacpu_kernels::sampling::{self, doubles};
use numpy::{PyArray1, PyReadonlyArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::lists::{array, collected, copy_of};
use crate::outside::{attached, released};

/// From this many elements on, the GIL is released: for fewer, releasing and reacquiring it costs more.
const LONG: usize = 1 << 20;

type TopK<'py> = (Bound<'py, PyArray1<i64>>, Bound<'py, PyArray1<f32>>);

/// The instruction set, read from the environment once.
fn isa(py: Python<'_>) -> PyResult<Isa> {
    static CHOSEN: Published<Isa> = Published::new();
    match CHOSEN.get() {
        Some(isa) => Ok(*isa),
        None => attached(py, Isa::chosen).map(|isa| *CHOSEN.set(isa)),
    }
}

fn numbers<'a>(logits: &'a PyReadonlyArray1<'_, f32>) -> PyResult<&'a [f32]> {
    logits
        .as_slice()
        .map_err(|_| PyValueError::new_err("logits must be contiguous; numpy.ascontiguousarray makes them so"))
}

/// Runs `work`; without the GIL it runs on a copy, since another thread may then write to the array.
fn compute<T: Send>(py: Python<'_>, logits: &[f32], work: impl FnOnce(&[f32]) -> T + Send) -> PyResult<T> {
    if logits.len() >= LONG {
        let logits = copy_of(logits)?;
        return released(py, || Ok::<_, Error>(work(&logits)));
    }
    attached(py, || Ok::<_, Error>(work(logits)))
}

/// The id of the largest logit, the lowest among equals; NaN never wins.
#[pyfunction]
fn argmax(py: Python<'_>, logits: PyReadonlyArray1<'_, f32>) -> PyResult<usize> {
    let isa = isa(py)?;
    compute(py, numbers(&logits)?, |logits| sampling::argmax(isa, logits))?
        .ok_or_else(|| PyValueError::new_err("no logit is a number; expected at least one that is not NaN"))
}

/// The k largest logits in descending order with their ids.
#[pyfunction]
fn top_k<'py>(py: Python<'py>, logits: PyReadonlyArray1<'py, f32>, k: usize) -> PyResult<TopK<'py>> {
    let isa = isa(py)?;
    let chosen = compute(py, numbers(&logits)?, |logits| sampling::top_k(isa, logits, k))?;
    let ids = collected(py, chosen.iter().map(|(id, _)| i64::from(*id)))?;
    Ok((ids, collected(py, chosen.iter().map(|(_, logit)| *logit))?))
}

/// `(log_sum, entropy)` of the softmax; `None` if it is undefined.
#[pyfunction]
fn distribution(py: Python<'_>, logits: PyReadonlyArray1<'_, f32>) -> PyResult<Option<(f64, f64)>> {
    let isa = isa(py)?;
    let found = compute(py, numbers(&logits)?, |logits| sampling::distribution(isa, logits))?;
    Ok(found.map(|found| (found.log_sum, found.entropy)))
}

/// The log-probabilities; `None` if the softmax is undefined.
#[pyfunction]
fn log_softmax<'py>(
    py: Python<'py>,
    logits: PyReadonlyArray1<'py, f32>,
) -> PyResult<Option<Bound<'py, PyArray1<f32>>>> {
    let isa = isa(py)?;
    let (found, output) = compute(py, numbers(&logits)?, |logits| {
        let mut output = vec![0.0; logits.len()];
        (sampling::log_softmax(isa, logits, &mut output), output)
    })?;
    found.then(|| array(py, output)).transpose()
}

fn applied<'py>(
    py: Python<'py>,
    values: PyReadonlyArray1<'py, f64>,
    function: fn(Isa, &mut [f64]),
) -> PyResult<Bound<'py, PyArray1<f64>>> {
    let isa = isa(py)?;
    let mut found = copy_of(&values.as_slice().map_or_else(|_| Cow::Owned(values.as_array().to_vec()), Cow::Borrowed))?;
    let long = found.len() >= LONG;
    let work = move || {
        function(isa, &mut found);
        Ok::<_, Error>(found)
    };
    let found = if long { released(py, work) } else { attached(py, work) }?;
    array(py, found)
}

/// The exponential of each number, the same bits on every processor; 0 below -707, infinity above 709.
#[pyfunction]
fn exp<'py>(py: Python<'py>, values: PyReadonlyArray1<'py, f64>) -> PyResult<Bound<'py, PyArray1<f64>>> {
    applied(py, values, doubles::exp)
}

/// The natural logarithm of each number, the same bits on every processor.
#[pyfunction]
fn log<'py>(py: Python<'py>, values: PyReadonlyArray1<'py, f64>) -> PyResult<Bound<'py, PyArray1<f64>>> {
    applied(py, values, doubles::ln)
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(argmax, module)?)?;
    module.add_function(wrap_pyfunction!(top_k, module)?)?;
    module.add_function(wrap_pyfunction!(distribution, module)?)?;
    module.add_function(wrap_pyfunction!(log_softmax, module)?)?;
    module.add_function(wrap_pyfunction!(exp, module)?)?;
    module.add_function(wrap_pyfunction!(log, module)?)
}
