//! Maps activation names to the kernels that compute them.

use llamacpu_kernels::activation::{self as kernels, clamped_swiglu, limited_swiglu};
use llamacpu_kernels::context::Context;

use crate::Error;
use crate::config::{Activation, Config};

/// Slope and limit of the clamped activation (gpt-oss, arXiv:2508.10925).
pub(crate) const CLAMPED: (f32, f32) = (1.702, 7.0);

/// An activation function, and what it clamps its operands to if it does so by a limit of the model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Function {
    pub(crate) activation: Activation,
    limit: f32,
}

impl Config {
    /// The activation function of the model.
    pub(crate) fn function(&self) -> Function {
        Function { activation: self.activation, limit: self.activation_limit }
    }
}

/// `gate = function(gate) * up`.
pub(crate) fn gated(
    context: &Context,
    Function { activation, limit }: Function,
    gate: &mut [f32],
    up: &[f32],
) -> Result<(), Error> {
    match kernel(activation) {
        Some(kernel) => Ok(kernels::gated(context, kernel, gate, up)?),
        None if activation == Activation::LimitedSilu => Ok(limited_swiglu(context, gate, up, limit)?),
        None => Ok(clamped_swiglu(context, gate, up, CLAMPED.0, CLAMPED.1)?),
    }
}

/// `output = function(gate) * up`, for functions without a limit of the model.
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
    gated(context, Function { activation, limit: 0.0 }, output, up)
}

/// `values = function(values)`; validation has already ensured that the function needs no gate.
pub(crate) fn plain(context: &Context, activation: Activation, values: &mut [f32]) -> Result<(), Error> {
    kernel(activation).map_or(Ok(()), |kernel| Ok(kernels::activate(context, kernel, values)?))
}

/// The elementwise function; `None` for the clamped ones, which are computed together with their gates.
pub(crate) fn kernel(activation: Activation) -> Option<kernels::Activation> {
    match activation {
        Activation::Silu => Some(kernels::Activation::Silu),
        Activation::GeluTanh => Some(kernels::Activation::GeluTanh),
        Activation::Gelu => Some(kernels::Activation::Gelu),
        Activation::Tanh => Some(kernels::Activation::Tanh),
        Activation::ReluSquared => Some(kernels::Activation::ReluSquared),
        Activation::ClampedSilu | Activation::LimitedSilu => None,
    }
}
