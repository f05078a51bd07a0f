//! What reading a GGUF header needs from native code: the index over its string arrays.

use numpy::{PyArray1, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::IntoPython;

/// The bytes of a Python object, without a copy: `bytes` directly, everything else with a buffer through NumPy.
pub(crate) enum Buffer<'py> {
    Bytes(Bound<'py, PyBytes>),
    Array(PyReadonlyArray1<'py, u8>),
}

impl<'py> Buffer<'py> {
    /// Views `object` (`bytes`, `mmap`, `memoryview`, a `uint8` array, ...).
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self::Bytes(bytes.clone()));
        }
        let numpy = object.py().import("numpy")?;
        let array = numpy.call_method1("frombuffer", (object, "uint8"))?.extract::<PyReadonlyArray1<'py, u8>>()?;
        if !array.is_contiguous() {
            return Err(PyValueError::new_err("a buffer of contiguous bytes is needed"));
        }
        Ok(Self::Array(array))
    }

    /// The bytes themselves.
    pub(crate) fn bytes(&self) -> PyResult<&[u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.as_bytes()),
            Self::Array(array) => Ok(array.as_slice()?),
        }
    }
}

/// Finds the `count` strings of a GGUF string array whose first length prefix lies at byte `start` of `buffer`.
///
/// Returns `(offsets, end)`: `count + 1` positions as uint64, of which the last equals `end`, the first byte after the
/// array. String `i` is `buffer[offsets[i] + 8 : offsets[i + 1]]`.
#[pyfunction]
fn index_strings<'py>(
    py: Python<'py>,
    buffer: &Bound<'py, PyAny>,
    start: u64,
    count: u64,
) -> PyResult<(Bound<'py, PyArray1<u64>>, u64)> {
    let buffer = Buffer::of(buffer)?;
    let index = llamacpu_text::index_strings(buffer.bytes()?, start, count).map_err(|error| error.into_python(py))?;
    Ok((PyArray1::from_vec(py, index.offsets), index.end))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(index_strings, module)?)
}
