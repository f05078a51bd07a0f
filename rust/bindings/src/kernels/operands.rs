//! What the functions on NumPy arrays share: operands, results, formats and the choice of instruction set.

use numpy::{PyArray1, PyArrayDyn, PyArrayMethods, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_kernels::Error;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;

/// Number of multiplications that take long enough for signal handlers to run in the meantime.
pub(super) const LONG: usize = 1 << 24;

pub(super) type FloatArray<'py> = PyReadonlyArrayDyn<'py, f32>;
pub(super) type Output<'py> = PyResult<Bound<'py, PyArrayDyn<f32>>>;

/// The instruction set with that name, or the best available one.
pub(super) fn chosen(isa: Option<&str>) -> Result<Isa, Error> {
    isa.map_or_else(Isa::chosen, Isa::named)
}

/// A copy of the elements, and the shape.
#[expect(clippy::needless_pass_by_value, reason = "ends the borrow of the array")]
pub(super) fn operand<T: numpy::Element + Copy>(
    name: &str,
    array: PyReadonlyArrayDyn<'_, T>,
) -> PyResult<(Vec<T>, Vec<usize>)> {
    if !array.is_c_contiguous() {
        let message = format!("{name} is not contiguous in memory; pass numpy.ascontiguousarray({name})");
        return Err(PyValueError::new_err(message));
    }
    Ok((array.as_slice()?.to_vec(), array.shape().to_vec()))
}

/// The format of that name.
pub(super) fn format_named(name: &str) -> PyResult<Format> {
    Format::named(name).ok_or_else(|| {
        let known: Vec<_> = Format::all().iter().map(|format| format.info().name).collect();
        PyValueError::new_err(format!("format is {name:?}; expected one of {}", known.join(", ")))
    })
}

/// The error for rows that are no whole blocks.
pub(super) fn whole_blocks(format: Format, columns: usize) -> PyErr {
    let info = format.info();
    let message = format!("rows of {columns} weights in {}; expected a multiple of {}", info.name, info.block_elements);
    PyValueError::new_err(message)
}

/// Number of weights in a row of `row_bytes` bytes.
pub(super) fn columns_of(format: Format, row_bytes: usize) -> PyResult<usize> {
    let info = format.info();
    if row_bytes.is_multiple_of(info.block_bytes) {
        return Ok(row_bytes / info.block_bytes * info.block_elements);
    }
    let message = format!("rows of {row_bytes} bytes in {}; expected a multiple of {}", info.name, info.block_bytes);
    Err(PyValueError::new_err(message))
}

/// The length of a row.
pub(super) fn last(shape: &[usize]) -> PyResult<usize> {
    shape
        .last()
        .copied()
        .ok_or_else(|| PyValueError::new_err("a single number; expected an array of at least one dimension"))
}

/// An array of shape `shape`, but with rows of `columns` elements.
pub(super) fn shaped<'py, T: numpy::Element>(
    py: Python<'py>,
    values: Vec<T>,
    shape: &[usize],
    columns: usize,
) -> PyResult<Bound<'py, PyArrayDyn<T>>> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = columns;
    }
    PyArray1::from_vec(py, values).reshape(shape)
}
