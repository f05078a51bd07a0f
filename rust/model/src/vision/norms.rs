//! The norms of a picture encoder.

use llamacpu_kernels::norm;

use super::config::VisionConfig;
use crate::Error;
use crate::config::NormKind;
use crate::tensors::Tensors;
use crate::weights::Norm;

/// The weights of a norm of this kind and of `len` elements; its epsilon is still to be set.
pub(super) fn norm_of(kind: NormKind, tensors: &mut Tensors, name: &str, len: usize) -> Result<Norm, Error> {
    let weight = tensors.vector(&format!("{name}.weight"), len)?;
    let bias = match kind {
        NormKind::Rms => None,
        NormKind::Layer => tensors.optional_vector(&format!("{name}.bias"), len)?,
    };
    Ok(Norm { weight, bias, kind, epsilon: 0.0 })
}

/// Those of a norm of the encoder.
pub(super) fn encoder_norm(
    config: &VisionConfig,
    tensors: &mut Tensors,
    name: &str,
    len: usize,
) -> Result<Norm, Error> {
    Ok(Norm { epsilon: config.norm_epsilon, ..norm_of(config.norm, tensors, name, len)? })
}

/// The norm of rows with these weights.
pub(super) fn norm(weights: &Norm) -> norm::Norm<'_> {
    let kind = match weights.kind {
        NormKind::Rms => norm::NormKind::RootMeanSquare,
        NormKind::Layer => norm::NormKind::MeanAndVariance,
    };
    let (weight, bias) = (Some(&weights.weight[..]), weights.bias.as_deref());
    norm::Norm { kind, size: weights.weight.len(), weight, bias, epsilon: weights.epsilon }
}
