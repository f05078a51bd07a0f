//! A layer of a picture encoder: attention and a feed-forward network, each after a norm and added to the states.

use llamacpu_kernels::activation::{activate, add, gated, scale};
use llamacpu_kernels::attention::KvType;
use llamacpu_kernels::context::Context;

use super::attention::{Projections, VisionPages, room};
use super::config::VisionConfig;
use super::norms::norm;
use super::places::Places;
use super::positions::Turns;
use super::products::project;
use super::weights::{VisionLayer, VisionWeights};
use crate::error::Error;
use crate::rows::for_rows;
use crate::scratch::Scratch;

/// Rows that go through a feed-forward network together: its states are several times as wide as those of the layer.
const NETWORK_ROWS: usize = 1024;

/// Intermediate results, reused from layer to layer; each holds rows × the width of the states.
pub(super) struct LayerBuffers {
    normed: Vec<f32>,
    branch: Vec<f32>,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    /// Rows of a feed-forward network × its width, twice if it has a gate.
    up: Vec<f32>,
    gate: Vec<f32>,
    pages: VisionPages,
    /// Whether products with F16 and BF16 weights are those of 16-bit integers.
    words: bool,
    pub(super) scratch: Scratch,
}

impl LayerBuffers {
    pub(super) fn new(
        config: &VisionConfig,
        weights: &VisionWeights,
        places: &Places,
        sequences: usize,
    ) -> Result<Self, Error> {
        let (rows, width) = (sequences * places.len(), config.embedding_length);
        let words = weights.halves();
        let kv_type = if words { KvType::I16 } else { KvType::F32 };
        let inner = room(rows.min(NETWORK_ROWS), config.feed_forward)?;
        Ok(Self {
            normed: room(rows, width)?,
            branch: room(rows, width)?,
            query: room(rows, width)?,
            key: room(rows, width)?,
            value: room(rows, width)?,
            gate: if config.gated { room(rows.min(NETWORK_ROWS), config.feed_forward)? } else { Vec::new() },
            up: inner,
            pages: VisionPages::new(kv_type, (config.heads, config.head_size()), places.len(), sequences)?,
            words,
            scratch: Scratch::default(),
        })
    }
}

/// Runs the states through a layer.
pub(super) fn run(
    context: &Context,
    (config, layer): (&VisionConfig, &VisionLayer),
    (places, turns, windowed): (&Places, Option<&Turns>, bool),
    buffers: &mut LayerBuffers,
    stream: &mut [f32],
) -> Result<(), Error> {
    let width = config.embedding_length;
    let rows = stream.len() / width;
    let LayerBuffers { normed, branch, query, key, value, up, gate, pages, words, scratch } = buffers;
    let words = *words;
    let [normed, branch, query, key, value] = [normed, branch, query, key, value].map(|all| &mut all[..stream.len()]);

    norm(&layer.attention_norm).apply(context, stream, normed)?;
    let mut projections = [(&layer.query, &mut *query), (&layer.key, &mut *key), (&layer.value, &mut *value)];
    project((context, words), normed, (rows, &mut *scratch), &mut projections)?;
    if let Some(turns) = turns {
        turns.turn(context, query, width)?;
        turns.turn(context, key, width)?;
    }
    pages.attend(context, places, windowed, Projections { query, key, value }, normed)?;
    project((context, words), normed, (rows, &mut *scratch), &mut [(&layer.output, &mut *branch)])?;
    let scales = layer.scales.as_ref().map(|scales| &scales.0[..]);
    add_scaled(context, (layer.factors.map(|factors| factors.0), scales), stream, branch)?;

    norm(&layer.feed_forward_norm).apply(context, stream, normed)?;
    for (input, output) in normed.chunks(NETWORK_ROWS * width).zip(branch.chunks_mut(NETWORK_ROWS * width)) {
        let rows = input.len() / width;
        let up = &mut up[..rows * config.feed_forward];
        if let Some(first) = &layer.gate {
            let gate = &mut gate[..rows * config.feed_forward];
            project((context, words), input, (rows, &mut *scratch), &mut [(first, &mut *gate), (&layer.up, &mut *up)])?;
            gated(context, config.activation.kernel(), gate, up)?;
            project((context, words), gate, (rows, &mut *scratch), &mut [(&layer.down, output)])?;
        } else {
            project((context, words), input, (rows, &mut *scratch), &mut [(&layer.up, &mut *up)])?;
            activate(context, config.activation.kernel(), up)?;
            project((context, words), up, (rows, &mut *scratch), &mut [(&layer.down, output)])?;
        }
    }
    let scales = layer.scales.as_ref().map(|scales| &scales.1[..]);
    add_scaled(context, (layer.factors.map(|factors| factors.1), scales), stream, branch)
}

/// `stream += factor * branch`, or each element times that of `scales`.
fn add_scaled(
    context: &Context,
    (factor, scales): (Option<f32>, Option<&[f32]>),
    stream: &mut [f32],
    branch: &mut [f32],
) -> Result<(), Error> {
    if let Some(scales) = scales {
        for_rows(context, branch, scales.len(), &|_, row| {
            row.iter_mut().zip(scales).for_each(|(value, scale)| *value *= scale);
            Ok(())
        })?;
    }
    if let Some(factor) = factor {
        scale(context, branch, factor)?;
    }
    Ok(add(context, stream, branch)?)
}
