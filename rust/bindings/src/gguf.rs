//! Native support for reading a GGUF header: the index over its string arrays.

use numpy::{PyArray1, PyReadonlyArray1, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::lists::array;
use crate::outside::attached;

/// The bytes of a Python object, without a copy: `bytes` directly, any other buffer object through NumPy. While the GIL
/// is held, nothing changes them; bytes used without it must be copied first unless they are `fixed`.
pub(crate) enum Buffer<'py> {
    Bytes(Bound<'py, PyBytes>),
    Array { array: PyReadonlyArray1<'py, u8>, readable_map: bool },
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
        let is_map = object.is_instance(&object.py().import("mmap")?.getattr("mmap")?)?;
        let readable_map = is_map && !array.getattr("flags")?.getattr("writeable")?.extract::<bool>()?;
        Ok(Self::Array { array, readable_map })
    }

    /// Whether nothing in Python can change the bytes: true for `bytes` and for a file mapped read-only.
    pub(crate) fn fixed(&self) -> bool {
        match self {
            Self::Bytes(_) => true,
            Self::Array { readable_map, .. } => *readable_map,
        }
    }

    /// The bytes themselves.
    pub(crate) fn bytes(&self) -> PyResult<&[u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.as_bytes()),
            Self::Array { array, .. } => Ok(array.as_slice()?),
        }
    }
}

/// `(offsets, end)`; see `index_strings`.
pub(crate) type StringIndex<'py> = (Bound<'py, PyArray1<u64>>, u64);

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
) -> PyResult<StringIndex<'py>> {
    let buffer = Buffer::of(buffer)?;
    let bytes = buffer.bytes()?;
    let index = attached(py, || llamacpu_text::index_strings(bytes, start, count))?;
    Ok((array(py, index.offsets)?, index.end))
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(index_strings, module)?)
}
