//! Maps activation names to the kernels that compute them.

use llamacpu_kernels::activation::{self as kernels, clamped_swiglu};
use llamacpu_kernels::context::Context;

use crate::Error;
use crate::config::Activation;

/// Slope and limit of the clamped activation (gpt-oss, arXiv:2508.10925).
pub(crate) const CLAMPED: (f32, f32) = (1.702, 7.0);

/// `gate = function(gate) * up`.
pub(crate) fn gated(context: &Context, activation: Activation, gate: &mut [f32], up: &[f32]) -> Result<(), Error> {
    match kernel(activation) {
        Some(kernel) => Ok(kernels::gated(context, kernel, gate, up)?),
        None => Ok(clamped_swiglu(context, gate, up, CLAMPED.0, CLAMPED.1)?),
    }
}

/// `output = function(gate) * up`.
pub(crate) fn gated_into(
    context: &Context,
    activation: Activation,
    (gate, up): (&[f32], &[f32]),
    output: &mut [f32],
) -> Result<(), Error> {
    if let Some(kernel) = kernel(activation) {
        return Ok(kernels::gated_into(context, kernel, (gate, up), output)?);
    }
    kernels::copy(context, output, gate)?;
    gated(context, activation, output, up)
}

/// `values = function(values)`; validation has already ensured that the function needs no gate.
pub(crate) fn plain(context: &Context, activation: Activation, values: &mut [f32]) -> Result<(), Error> {
    kernel(activation).map_or(Ok(()), |kernel| Ok(kernels::activate(context, kernel, values)?))
}

/// The elementwise function; `None` for the clamped one, which is computed together with its gate.
pub(crate) fn kernel(activation: Activation) -> Option<kernels::Activation> {
    match activation {
        Activation::Silu => Some(kernels::Activation::Silu),
        Activation::GeluTanh => Some(kernels::Activation::GeluTanh),
        Activation::Gelu => Some(kernels::Activation::Gelu),
        Activation::Tanh => Some(kernels::Activation::Tanh),
        Activation::ReluSquared => Some(kernels::Activation::ReluSquared),
        Activation::ClampedSilu => None,
    }
}
