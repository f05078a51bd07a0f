//! Conversion of rows of weights, from an array or straight from a model file.

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn};
use pyo3::prelude::*;

use llamacpu_kernels::context::Context;
use llamacpu_kernels::conversion::{Conversion, Stored};
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::threads::Pool;
use llamacpu_kernels::{Error, memory};

use super::operands::{FloatArray, chosen, columns_of, format_named, last, operand, shaped, whole_blocks};
use crate::files::File;
use crate::outside::{Interrupted, detached};

/// Number of weights whose conversion takes long enough for signal handlers to run in the meantime.
const LONG: usize = 1 << 18;

/// What is converted to what, and how.
struct Task {
    from: Format,
    to: Format,
    rows: usize,
    columns: usize,
    importance: Option<Vec<f32>>,
    threads: usize,
    isa: Option<String>,
}

impl Task {
    /// Bytes of a row of the result.
    fn row_bytes(&self) -> PyResult<usize> {
        self.to.row_bytes(self.columns).ok_or_else(|| whole_blocks(self.to, self.columns))
    }

    fn long(&self) -> bool {
        self.rows.saturating_mul(self.columns) > LONG
    }

    fn run(&self, input: Stored, row_bytes: usize, interrupted: Interrupted) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        memory::grow(&mut bytes, self.rows.saturating_mul(row_bytes), 0, "quantized weights")?;
        if self.columns > 0 {
            let pool = Pool::new(self.threads)?;
            let isa = chosen(self.isa.as_deref())?;
            let context = Context { isa, pool: &pool, interrupted: Some(interrupted), observer: None };
            let &Self { from, to, columns, .. } = self;
            Conversion { from, to, columns, importance: self.importance.as_deref() }
                .run(&context, input, &mut bytes)?;
        }
        Ok(bytes)
    }
}

/// Rows of blocks of one format to another.
#[pyfunction]
pub(super) fn convert<'py>(
    py: Python<'py>,
    data: PyReadonlyArrayDyn<'py, u8>,
    from: &str,
    to: &str,
    importance: Option<FloatArray<'py>>,
    threads: usize,
    isa: Option<&str>,
) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let (from, to) = (format_named(from)?, format_named(to)?);
    let (input, shape) = operand("data", data)?;
    let columns = columns_of(from, last(&shape)?)?;
    let rows = input.len().checked_div(last(&shape)?).unwrap_or(0);
    let importance = importance.map(|importance| operand("importance", importance)).transpose()?;
    let importance = importance.map(|(importance, _)| importance);
    let task = Task { from, to, rows, columns, importance, threads, isa: isa.map(str::to_owned) };
    let row_bytes = task.row_bytes()?;
    let bytes =
        detached(py, None, task.long(), move |interrupted| task.run(Stored::Bytes(&input), row_bytes, interrupted))?;
    shaped(py, bytes, &shape, row_bytes)
}

/// `rows` rows of `columns` weights, stored in a file from byte `start` on, to blocks of another format.
#[pyfunction]
pub(super) fn convert_stored<'py>(
    py: Python<'py>,
    file: &Bound<'py, File>,
    start: u64,
    rows: usize,
    columns: usize,
    from: &str,
    to: &str,
    importance: Option<FloatArray<'py>>,
    threads: usize,
) -> PyResult<Bound<'py, PyArrayDyn<u8>>> {
    let (from, to) = (format_named(from)?, format_named(to)?);
    let importance = importance.map(|importance| operand("importance", importance)).transpose()?;
    let importance = importance.map(|(importance, _)| importance);
    let task = Task { from, to, rows, columns, importance, threads, isa: None };
    let row_bytes = task.row_bytes()?;
    let stored_row = from.row_bytes(columns).ok_or_else(|| whole_blocks(from, columns))?;
    let source = file.get().source(py)?;
    let bytes = detached(py, None, task.long(), move |interrupted| {
        let len = rows.saturating_mul(stored_row);
        if start.checked_add(len as u64).is_none_or(|end| end > source.len()) {
            return Err(Error::File(format!(
                "{rows} rows of {stored_row} bytes from byte {start} on of a file of {} bytes",
                source.len()
            )));
        }
        let bytes = task.run(Stored::File { file: &source, start, len }, row_bytes, interrupted)?;
        // What was read of a file that changed meanwhile is worth nothing.
        source.check().map_err(|error| Error::File(error.to_string()))?;
        Ok(bytes)
    })?;
    PyArray1::from_vec(py, bytes).reshape(vec![rows, row_bytes])
}
