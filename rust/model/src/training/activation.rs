//! The activation functions of feed-forward networks and their derivatives.

use llamacpu_kernels::backward::{activate_backward, clamped_swiglu_backward, gated_backward};
use llamacpu_kernels::context::Context;

use crate::Error;
use crate::activation::{CLAMPED, kernel};
use crate::config::Activation;

/// Replaces gates and ups by the gradients with respect to them, and the gradient by the product that it belongs to.
pub(super) fn gated_back(
    context: &Context,
    activation: Activation,
    gate: &mut [f32],
    up: &mut [f32],
    gradient: &mut [f32],
) -> Result<(), Error> {
    match kernel(activation) {
        Some(kernel) => Ok(gated_backward(context, kernel, gate, up, gradient)?),
        None => Ok(clamped_swiglu_backward(context, gate, up, gradient, CLAMPED)?),
    }
}

/// Replaces values by the gradients with respect to them, and the gradient by the function of the values.
pub(super) fn plain_back(
    context: &Context,
    activation: Activation,
    values: &mut [f32],
    gradient: &mut [f32],
) -> Result<(), Error> {
    kernel(activation).map_or(Ok(()), |kernel| Ok(activate_backward(context, kernel, values, gradient)?))
}
