//! What the functions on NumPy arrays share: operands, results and the choice of instruction set.

use numpy::{PyArrayDyn, PyReadonlyArrayDyn, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use llamacpu_kernels::Error;
use llamacpu_kernels::cpu::Isa;

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
