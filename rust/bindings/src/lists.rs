//! Number sequences from and to Python. If memory runs short, they raise a MemoryError, unlike the conversions of PyO3,
//! which abort the process or panic.

use numpy::{Element, PyArray1};
use pyo3::exceptions::{PyMemoryError, PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMemoryView, PyString};

/// Integers from any sequence or array of them: token ids.
pub(crate) fn integers(object: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let py = object.py();
    let list = if object.hasattr("tolist")? { object.call_method0("tolist")? } else { object.clone() };
    if list.is_instance_of::<PyString>() {
        return Err(PyTypeError::new_err("token ids are needed, not text: encode it with the model's tokenizer first"));
    }
    let wrong = |error: PyErr| {
        if error.is_instance_of::<PyMemoryError>(py) {
            return error;
        }
        if error.is_instance_of::<PyOverflowError>(py) {
            return PyValueError::new_err("a token id is far outside the vocabulary");
        }
        PyTypeError::new_err(format!("token ids must be a flat sequence of integers: {}", error.value(py)))
    };
    let mut numbers = Vec::new();
    numbers.try_reserve_exact(list.len().map_err(wrong)?).map_err(|_| no_memory())?;
    for item in list.try_iter().map_err(wrong)? {
        numbers.try_reserve(1).map_err(|_| no_memory())?;
        numbers.push(item.and_then(|item| item.extract()).map_err(wrong)?);
    }
    Ok(numbers)
}

/// Token ids from any sequence or array of integers.
pub(crate) fn token_ids(object: &Bound<'_, PyAny>) -> PyResult<Vec<u32>> {
    let ids = integers(object)?;
    let mut tokens = Vec::new();
    tokens.try_reserve_exact(ids.len()).map_err(|_| no_memory())?;
    for id in ids {
        let outside = |_| PyValueError::new_err(format!("token id {id} is outside the vocabulary"));
        tokens.push(u32::try_from(id).map_err(outside)?);
    }
    Ok(tokens)
}

/// A Python list of ids.
pub(crate) fn list<'py>(py: Python<'py>, ids: &[u32]) -> PyResult<Bound<'py, PyAny>> {
    let bytes = PyBytes::new_with(py, size_of_val(ids), |out| {
        for (to, id) in out.as_chunks_mut::<4>().0.iter_mut().zip(ids) {
            *to = id.to_ne_bytes();
        }
        Ok(())
    })?;
    PyMemoryView::from(&bytes)?.call_method1("cast", ("I",))?.call_method0("tolist")
}

/// A NumPy array that takes ownership of the vector's memory.
pub(crate) fn array<T: Element>(py: Python<'_>, numbers: Vec<T>) -> PyResult<Bound<'_, PyArray1<T>>> {
    room_for_objects(py)?;
    Ok(PyArray1::from_vec(py, numbers))
}

/// A copy of a slice.
pub(crate) fn copy_of<T: Copy>(numbers: &[T]) -> PyResult<Vec<T>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(numbers.len()).map_err(|_| no_memory())?;
    copy.extend_from_slice(numbers);
    Ok(copy)
}

/// An empty vector with room for `count` elements.
pub(crate) fn reserved<T>(count: usize) -> PyResult<Vec<T>> {
    let mut room = Vec::new();
    room.try_reserve_exact(count).map_err(|_| no_memory())?;
    Ok(room)
}

/// A NumPy array of the given values.
pub(crate) fn collected<T: Element>(
    py: Python<'_>,
    numbers: impl ExactSizeIterator<Item = T>,
) -> PyResult<Bound<'_, PyArray1<T>>> {
    let mut all = Vec::new();
    all.try_reserve_exact(numbers.len()).map_err(|_| no_memory())?;
    all.extend(numbers);
    array(py, all)
}

/// Makes sure that there is memory for a few small Python objects, by allocating more and freeing it: PyO3 and
/// rust-numpy panic if there is none.
pub(crate) fn room_for_objects(py: Python<'_>) -> PyResult<()> {
    PyBytes::new_with(py, 16 << 10, |_| Ok(())).map(drop)
}

fn no_memory() -> PyErr {
    PyMemoryError::new_err("no memory for a list of numbers; close other models or sessions")
}
