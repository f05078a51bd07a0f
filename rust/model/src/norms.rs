//! Normalization of rows and of heads.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::norm;

use crate::Error;
use crate::config::{Config, LayerConfig, NormKind, QueryKeyNorm};
use crate::weights::Norm;

/// Sets `output` to the normalized rows of `input`.
pub(crate) fn normalize(
    context: &Context,
    config: &Config,
    norm: &Norm,
    input: &[f32],
    output: &mut [f32],
) -> Result<(), Error> {
    Ok(of_rows(config, Some(norm), norm.weight.len()).apply(context, input, output)?)
}

/// Normalizes the rows of `values` in place, if there is a norm.
pub(crate) fn normalize_in_place(
    context: &Context,
    config: &Config,
    norm: Option<&Norm>,
    values: &mut [f32],
) -> Result<(), Error> {
    let Some(norm) = norm else { return Ok(()) };
    let size = norm.weight.len();
    Ok(of_rows(config, Some(norm), size).apply_in_place(context, values, size)?)
}

/// Normalizes queries or keys in place, all heads of all rows.
pub(crate) fn normalize_heads(
    context: &Context,
    config: &Config,
    layer: &LayerConfig,
    norm: Option<&Norm>,
    heads: &mut [f32],
) -> Result<(), Error> {
    heads_norm(config, layer, norm).map_or(Ok(()), |norm| Ok(norm.apply_in_place(context, heads, norm.size)?))
}

/// Normalizes values in place, every head of all rows, without weights.
pub(crate) fn normalize_values(
    context: &Context,
    config: &Config,
    layer: &LayerConfig,
    heads: &mut [f32],
) -> Result<(), Error> {
    normalize_heads_of(context, config, layer.value_size, heads)
}

/// Normalizes heads of `size` elements in place, without weights.
pub(crate) fn normalize_heads_of(
    context: &Context,
    config: &Config,
    size: usize,
    heads: &mut [f32],
) -> Result<(), Error> {
    Ok(of_rows(config, None, size).apply_in_place(context, heads, size)?)
}

/// The norm of queries or keys, if the layer has one.
pub(crate) fn heads_norm<'a>(config: &Config, layer: &LayerConfig, norm: Option<&'a Norm>) -> Option<norm::Norm<'a>> {
    let size = match (layer.query_key_norm, norm) {
        (QueryKeyNorm::None, _) => return None,
        (QueryKeyNorm::Width, Some(norm)) => norm.weight.len(),
        _ => layer.key_size,
    };
    Some(of_rows(config, norm, size))
}

/// The norm of rows with these weights.
pub(crate) fn rows_norm<'a>(config: &Config, norm: &'a Norm) -> norm::Norm<'a> {
    of_rows(config, Some(norm), norm.weight.len())
}

/// The norm for rows of `size` elements.
fn of_rows<'a>(config: &Config, weights: Option<&'a Norm>, size: usize) -> norm::Norm<'a> {
    norm::Norm {
        kind: match weights.map_or(config.norm, |norm| norm.kind) {
            NormKind::Rms => norm::NormKind::RootMeanSquare,
            NormKind::Layer => norm::NormKind::MeanAndVariance,
        },
        size,
        weight: weights.map(|norm| &norm.weight[..]),
        bias: weights.and_then(|norm| norm.bias.as_deref()),
        epsilon: weights.map_or(config.norm_epsilon, |norm| norm.epsilon),
    }
}
