//! Predictions of tokens and differences between predictions, row by row, on NumPy arrays.
//!
//! Rows are copied block by block before the GIL is released, because another Python thread may write to the arrays.
#![expect(clippy::needless_pass_by_value, reason = "extracted arguments are passed by value")]

use llamacpu_kernels::Error;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::evaluation::{self, Original};
use numpy::{PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray1, PyReadonlyArray2, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::lists::{array, copy_of, reserved};
use crate::outside::released;

/// Numbers copied at a time.
const BLOCK: usize = 1 << 22;

type Floats<'py> = PyReadonlyArray2<'py, f32>;
type Tokens<'py> = PyReadonlyArray1<'py, i64>;
type Doubles<'py> = Bound<'py, PyArray1<f64>>;
type Ids<'py> = Bound<'py, PyArray1<i64>>;
type Predictions<'py> = (Doubles<'py>, Doubles<'py>, Ids<'py>);
type Differences<'py> = (Doubles<'py>, Doubles<'py>, Doubles<'py>, Ids<'py>, Ids<'py>);

/// Contiguous rows of an array.
struct Rows<'a, T> {
    numbers: &'a [T],
    width: usize,
}

impl<'a, T: numpy::Element> Rows<'a, T> {
    fn of(name: &str, array: &'a PyReadonlyArray2<'_, T>) -> PyResult<Self> {
        let numbers = array.as_slice().map_err(|_| {
            PyValueError::new_err(format!("{name} must be contiguous; numpy.ascontiguousarray makes it so"))
        })?;
        Ok(Self { numbers, width: array.shape()[1] })
    }

    fn block(&self, first: usize, rows: usize) -> &'a [T] {
        &self.numbers[first * self.width..(first + rows) * self.width]
    }
}

/// Token ids that are inside the vocabulary, one per row.
fn checked_tokens(tokens: &Tokens, rows: usize, vocabulary: usize) -> PyResult<Vec<usize>> {
    let tokens = tokens.as_array();
    if tokens.len() != rows {
        return Err(PyValueError::new_err(format!("{} tokens for {rows} rows; expected one per row", tokens.len())));
    }
    let mut checked = reserved(rows)?;
    for &token in tokens {
        match usize::try_from(token) {
            Ok(token) if token < vocabulary => checked.push(token),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "token id {token} is outside the vocabulary: expected 0 to {}",
                    vocabulary.saturating_sub(1)
                )));
            }
        }
    }
    Ok(checked)
}

fn no_softmax(row: usize) -> PyErr {
    PyValueError::new_err(format!("row {row} has no softmax: no finite logit, or an infinite one"))
}

fn rows_per_block(width: usize) -> usize {
    (BLOCK / width.max(1)).max(1)
}

/// `(log_probabilities, entropies, tops)` of the tokens, one per row of logits.
#[pyfunction]
fn predict<'py>(py: Python<'py>, logits: Floats<'py>, tokens: Tokens<'py>) -> PyResult<Predictions<'py>> {
    let rows = Rows::of("logits", &logits)?;
    let tokens = checked_tokens(&tokens, logits.shape()[0], rows.width)?;
    let mut found = reserved(tokens.len())?;
    let step = rows_per_block(rows.width);
    for (index, block) in tokens.chunks(step).enumerate() {
        let (own, width) = (copy_of(rows.block(index * step, block.len()))?, rows.width);
        let part = released(py, || {
            let isa = Isa::chosen()?;
            let lines = own.chunks_exact(width).zip(block);
            Ok::<_, Error>(lines.map(|(logits, &token)| evaluation::predict(isa, logits, token)).collect::<Vec<_>>())
        })?;
        for prediction in part {
            found.push(prediction.ok_or_else(|| no_softmax(found.len()))?);
        }
    }
    Ok((
        array(py, found.iter().map(|one| one.log_probability).collect())?,
        array(py, found.iter().map(|one| one.entropy).collect())?,
        array(py, found.iter().map(|one| one.top as i64).collect())?,
    ))
}

/// `(log_probabilities, original_log_probabilities, divergences, tops, original_tops)`, one per row. The original model is
/// given by logits, or by the records of a file of log-probabilities.
#[pyfunction]
#[pyo3(signature = (logits, tokens, original=None, records=None))]
fn compare<'py>(
    py: Python<'py>,
    logits: Floats<'py>,
    tokens: Tokens<'py>,
    original: Option<Floats<'py>>,
    records: Option<PyReadonlyArray2<'py, u16>>,
) -> PyResult<Differences<'py>> {
    let rows = Rows::of("logits", &logits)?;
    let (count, vocabulary) = (logits.shape()[0], rows.width);
    let tokens = checked_tokens(&tokens, count, vocabulary)?;
    let original = original.as_ref().map(|array| Rows::of("original", array)).transpose()?;
    let records = records.as_ref().map(|array| Rows::of("records", array)).transpose()?;
    let fits = match (&original, &records) {
        (Some(original), None) => original.width == vocabulary && original.numbers.len() == rows.numbers.len(),
        (None, Some(records)) => {
            let words = evaluation::record_words(vocabulary);
            records.width == words && Some(records.numbers.len()) == count.checked_mul(words)
        }
        _ => false,
    };
    if !fits {
        return Err(PyValueError::new_err(
            "expected one of original and records, with as many rows as logits and the same vocabulary",
        ));
    }
    let mut found = reserved(count)?;
    let step = rows_per_block(vocabulary);
    for (index, block) in tokens.chunks(step).enumerate() {
        let first = index * step;
        let own = copy_of(rows.block(first, block.len()))?;
        let base = original.as_ref().map(|rows| copy_of(rows.block(first, block.len()))).transpose()?;
        let codes = records.as_ref().map(|rows| copy_of(rows.block(first, block.len()))).transpose()?;
        let part = released(py, || {
            let isa = Isa::chosen()?;
            let mut read = vec![0.0; vocabulary];
            let lines = own.chunks_exact(vocabulary).zip(block).enumerate();
            let differences = lines.map(|(line, (logits, &token))| {
                if let Some(base) = &base {
                    let base = &base[line * vocabulary..][..vocabulary];
                    return evaluation::compare(isa, Original::Logits(base), logits, token);
                }
                let words = evaluation::record_words(vocabulary);
                let record = &codes.as_ref()?[line * words..][..words];
                let readable = evaluation::decode(record, &mut read);
                let original = Original::LogProbabilities(&read);
                readable.then(|| evaluation::compare(isa, original, logits, token)).flatten()
            });
            Ok::<_, Error>(differences.collect::<Vec<_>>())
        })?;
        for difference in part {
            found.push(difference.ok_or_else(|| no_softmax(found.len()))?);
        }
    }
    Ok((
        array(py, found.iter().map(|one| one.log_probability).collect())?,
        array(py, found.iter().map(|one| one.original_log_probability).collect())?,
        array(py, found.iter().map(|one| one.divergence).collect())?,
        array(py, found.iter().map(|one| one.top as i64).collect())?,
        array(py, found.iter().map(|one| one.original_top as i64).collect())?,
    ))
}

/// Log-probabilities as records of 16-bit codes, uint16[rows, words of a record].
#[pyfunction]
fn encode_log_probabilities<'py>(py: Python<'py>, logits: Floats<'py>) -> PyResult<Bound<'py, PyArray2<u16>>> {
    let rows = Rows::of("logits", &logits)?;
    let (count, width) = (logits.shape()[0], rows.width);
    let words = evaluation::record_words(width);
    let mut records = reserved(count.saturating_mul(words))?;
    let step = rows_per_block(width);
    for first in (0..count).step_by(step) {
        let own = copy_of(rows.block(first, step.min(count - first)))?;
        let part = released(py, || {
            let isa = Isa::chosen()?;
            let mut part = vec![0; own.len().checked_div(width).unwrap_or(0) * words];
            let mut lines = part.chunks_exact_mut(words).zip(own.chunks_exact(width.max(1)));
            let failed = lines.position(|(record, logits)| !evaluation::encode(isa, logits, record));
            Ok::<_, Error>((part, failed))
        })?;
        if let (_, Some(row)) = part {
            return Err(no_softmax(first + row));
        }
        records.extend_from_slice(&part.0);
    }
    array(py, records)?.reshape([count, words])
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(predict, module)?)?;
    module.add_function(wrap_pyfunction!(compare, module)?)?;
    module.add_function(wrap_pyfunction!(encode_log_probabilities, module)?)
}
