//! Second embeddings of the tokens, one for each layer (Gemma 3n and 4): the sum of an entry of a table and of a projection of
//! the first embedding, which the layer adds to the stream at its end, behind a gate.

use llamacpu_kernels::activation::{add, scale};
use llamacpu_kernels::context::Context;

use crate::activation::gated;
use crate::config::Config;
use crate::error::{Error, sized};
use crate::feed_forward::project;
use crate::norms::{normalize_in_place, rows_norm};
use crate::pass::{Segment, keep_last};
use crate::rows::for_rows;
use crate::scratch::Scratch;
use crate::weights::{LayerInput, PerLayerInputs};

const PURPOSE: &str = "inputs of layers";

/// Buffers of the layers' inputs; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct LayerInputBuffers {
    /// layers × size
    all: Vec<f32>,
    /// size
    gate: Vec<f32>,
    /// size: the input of the current layer
    own: Vec<f32>,
}

/// Computes the inputs of all layers for the rows of `stream`, which is still the embedding of `tokens`.
pub(crate) fn prepare(
    context: &Context,
    (config, weights): (&Config, &PerLayerInputs),
    segments: &[Segment],
    stream: &[f32],
    (buffers, scratch): (&mut LayerInputBuffers, &mut Scratch),
) -> Result<(), Error> {
    let (size, width) = (config.per_layer_input, config.embedding_length);
    let (rows, row_size) = (stream.len() / width, config.layers * size);
    let all = sized(&mut buffers.all, rows.checked_mul(row_size), PURPOSE)?;
    project(context, stream, rows, scratch, &mut [(&weights.projection, &mut *all)])?;
    scale(context, all, 1.0 / (width as f32).sqrt())?;
    rows_norm(config, &weights.norm).apply_in_place(context, all, size)?;
    let tokens: Vec<u32> = segments.iter().flat_map(|segment| segment.tokens).copied().collect();
    let own = sized(&mut buffers.own, rows.checked_mul(row_size), PURPOSE)?;
    // Rows of pictures have ids beyond the table; the model was trained with the first entry for them.
    let entry = |token: u32| if (token as usize) < weights.tokens.rows() { token as usize } else { 0 };
    for_rows(context, own, row_size, &|row, output| weights.tokens.row(entry(tokens[row]), output))?;
    scale(context, own, (size as f32).sqrt())?;
    add(context, all, own)?;
    Ok(scale(context, all, std::f32::consts::FRAC_1_SQRT_2)?)
}

/// Keeps only the rows that continue after the last layer.
pub(crate) fn keep(config: &Config, segments: &[Segment], buffers: &mut LayerInputBuffers) {
    let row_size = config.layers * config.per_layer_input;
    if row_size > 0 {
        keep_last(segments, &mut buffers.all, row_size, |segment| (segment.tokens.len(), segment.kept));
    }
}

/// Adds the input of a layer to the stream. Overwrites `branch`.
pub(crate) fn join(
    context: &Context,
    (config, weights): (&Config, &LayerInput),
    layer: usize,
    (stream, branch): (&mut [f32], &mut [f32]),
    (buffers, scratch): (&mut LayerInputBuffers, &mut Scratch),
) -> Result<(), Error> {
    let (size, rows) = (config.per_layer_input, stream.len() / config.embedding_length);
    let LayerInputBuffers { all, gate, own } = buffers;
    let gate = sized(gate, rows.checked_mul(size), PURPOSE)?;
    let own = sized(own, rows.checked_mul(size), PURPOSE)?;
    let all = &*all;
    for_rows(context, own, size, &|row, output| {
        output.copy_from_slice(&all[(row * config.layers + layer) * size..][..size]);
        Ok(())
    })?;
    project(context, stream, rows, scratch, &mut [(&weights.gate, &mut *gate)])?;
    gated(context, config.function(), gate, own)?;
    project(context, gate, rows, scratch, &mut [(&weights.projection, &mut *branch)])?;
    normalize_in_place(context, config, Some(&weights.norm), branch)?;
    Ok(add(context, stream, branch)?)
}
