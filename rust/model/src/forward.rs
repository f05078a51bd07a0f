//! The forward pass: token ids in, logits out. It reads from top to bottom like a description of the architecture
//! (LLaMA, arXiv:2302.13971); models differ by switches in `Config` or by absent parts of a layer. Each block has its
//! own file.
//!
//! Every row of every buffer belongs to one token and is computed from that token's rows alone (attention also reads
//! the pages), in an order fixed by the kernels, so the results are bit-identical however tokens are grouped into
//! calls.

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::activation::soft_cap;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{Addition, Job, matmul_with};
use llamacpu_kernels::memory;

use crate::adapters::{AdaptedRows, changes};
use crate::attention;
use crate::config::{Config, Input};
use crate::distances::Distances;
use crate::embedding::{add_pictures, embed};
use crate::error::{Error, sized};
use crate::feed_forward::{NetworkBuffers, project};
use crate::hidden::Hidden;
use crate::joining::{entering, join_attention, join_feed_forward, normalized, scaled};
use crate::layer_input::{self, LayerInputBuffers};
use crate::pass::{Pass, Segment, keep_last};
use crate::picture_positions::positions;
use crate::rotations::{Angles, Place, Rotations};
use crate::row_inputs::{self, PairBuffers};
use crate::scratch::Scratch;
use crate::weights::{Attention, Layer, Output, Weights};
use crate::{cross_attention, latent_attention, moe, recurrent, shared_attention, streams};

/// Intermediate results, reused from step to step; each buffer holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct PassBuffers {
    /// embedding: the residual stream
    stream: Vec<f32>,
    /// embedding: the input of a block
    normed: Vec<f32>,
    /// embedding: what a block adds to the stream
    branch: Vec<f32>,
    angles: Angles,
    attention: attention::AttentionBuffers,
    latent: latent_attention::LatentBuffers,
    shared: shared_attention::SharedBuffers,
    streams: streams::StreamBuffers,
    recurrent: recurrent::RecurrentBuffers,
    inner: NetworkBuffers,
    experts: moe::ExpertBuffers,
    inputs: LayerInputBuffers,
    pairs: PairBuffers,
    scratch: Scratch,
}

impl PassBuffers {
    /// What products use besides their operands.
    pub(crate) fn scratch(&mut self) -> &mut Scratch {
        &mut self.scratch
    }

    /// Lets go of the adapters of the last step, which may be large.
    pub(crate) fn forget_adapters(&mut self) {
        self.scratch.adapted = AdaptedRows::default();
    }
}

/// Runs the tokens of all segments through the model, writes their keys and values, and sets `logits` (wanted rows ×
/// vocabulary, in the order of the segments) and the requested hidden states.
pub(crate) fn forward(
    context: &Context,
    (config, weights, rotations): (&Config, &Weights, &Rotations),
    segments: &mut [Segment],
    buffers: &mut PassBuffers,
    hidden: &mut Hidden,
    logits: &mut [f32],
) -> Result<(), Error> {
    let width = config.embedding_length;
    let mut rows: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
    let wanted: usize = segments.iter().map(|segment| segment.wanted).sum();
    let kept: usize = segments.iter().map(|segment| segment.kept).sum();
    let PassBuffers {
        stream,
        normed,
        branch,
        angles,
        attention,
        latent,
        shared,
        streams,
        recurrent,
        inner,
        experts,
        inputs,
        pairs,
        scratch,
    } = buffers;
    let wide = config.stream_width();
    let mut stream = sized(stream, rows.checked_mul(wide), "activations")?;
    let mut normed = sized(normed, rows.checked_mul(width), "activations")?;
    let mut branch = sized(branch, rows.checked_mul(width), "activations")?;

    let places = places(segments, rows)?;
    scratch.adapted = AdaptedRows::of(&segments.iter().map(Segment::adapted).collect::<Vec<_>>());
    enter(context, (config, weights), segments, (&places, pairs, scratch), (branch, stream))?;
    experts.tokens = tokens_of(segments, rows)?;
    if let Some(weights) = &weights.inputs {
        layer_input::prepare(context, (config, weights), segments, stream, (&mut *inputs, &mut *scratch))?;
    }
    rotations.set(context, &places, angles)?;
    let distances = distances(context, (config, weights), segments)?;

    for (layer, blocks) in weights.layers.iter().enumerate() {
        if context.interrupted.is_some_and(|interrupted| interrupted()) {
            return Err(KernelError::Cancelled.into());
        }
        let last = layer + 1 == weights.layers.len();
        let behind = if last { kept } else { rows };
        let sizes = config.layer(layer);
        let (places, distances) = (&places[..], distances.as_ref());
        let pass = Pass { context, config, rotations, angles, places, distances, layer, sizes, last, kept: behind };

        if let Some(block) = &blocks.cross {
            cross_attention::run(&pass, block, segments, (&mut *inner, &mut *scratch), stream)?;
        }
        if let Some(block) = &blocks.attention {
            let input = if config.input == Input::Pairs {
                pairs.joined(rows, width)
            } else {
                let link = blocks.links.as_ref().map(|links| &links.attention);
                let parts = (&mut *streams, &mut *scratch);
                entering(context, config, (link, blocks.attention_norm.as_ref()), stream, parts, normed)?
            };
            let buffers = (&mut *attention, &mut *latent, &mut *shared, &mut *recurrent);
            attend(&pass, block, input, segments, (buffers, &mut *scratch), branch)?;
        } else if config.parallel {
            normalized(context, config, blocks.attention_norm.as_ref(), stream, normed)?;
        }
        if last && kept < rows {
            if kept == 0 {
                return Ok(());
            }
            keep_continuing(segments, (config, blocks), (stream, normed, branch), (inputs, experts, streams));
            rows = kept;
            stream = &mut stream[..rows * wide];
            normed = &mut normed[..rows * width];
            branch = &mut branch[..rows * width];
        }
        if config.parallel {
            normalized(context, config, blocks.feed_forward_norm.as_ref(), stream, normed)?;
        }
        if blocks.attention.is_some() {
            join_attention(context, (config, blocks), (&mut *stream, &mut *branch, &mut *normed), streams)?;
        }
        let buffers = (&mut *inner, &mut *experts, &mut *scratch);
        let parts = (&mut *stream, &mut *normed, &mut *branch);
        join_feed_forward(context, (config, blocks), parts, buffers, streams)?;
        if let Some(input) = &blocks.input {
            let buffers = (&mut *inputs, &mut *scratch);
            layer_input::join(context, (config, input), layer, (&mut *stream, &mut *branch), buffers)?;
        }
        scaled(context, stream, blocks.scale.unwrap_or(1.0))?;
        scratch.adapted.steer(layer, stream, width);
        add_pictures(config, segments, layer, stream);
        hidden.take(layer, stream);
    }

    end(context, (config, weights), stream, (&mut *streams, &mut *scratch), normed)?;
    hidden.take(weights.layers.len(), normed);
    let Some(output) = weights.output.as_ref().filter(|_| wanted > 0) else { return Ok(()) };
    keep_last(segments, normed, width, |segment| (segment.kept, segment.wanted));
    let normed = &normed[..wanted * width];
    logits_of(context, output, normed, wanted, scratch, logits)?;
    finish(context, config, output.bias.as_deref(), logits)
}

/// Writes the keys and values that every layer computes from the rows of all segments, which go no further.
pub(crate) fn write_keys(
    context: &Context,
    (config, weights, rotations): (&Config, &Weights, &Rotations),
    segments: &mut [Segment],
    buffers: &mut PassBuffers,
) -> Result<(), Error> {
    let rows = segments.iter().map(|segment| segment.tokens.len()).sum();
    let PassBuffers { stream, angles, attention, pairs, scratch, .. } = buffers;
    let stream = sized(stream, config.embedding_length.checked_mul(rows), "activations")?;
    let places = places(segments, rows)?;
    scratch.adapted = AdaptedRows::default();
    if let Some(rows) = &weights.rows {
        row_inputs::begin(context, (config, rows), segments, (pairs, &mut *scratch), stream)?;
    }
    rotations.set(context, &places, angles)?;
    for (layer, blocks) in weights.layers.iter().enumerate() {
        let (sizes, places) = (config.layer(layer), &places[..]);
        let pass =
            Pass { context, config, rotations, angles, places, distances: None, layer, sizes, last: true, kept: 0 };
        if let Some(Attention::Heads(heads)) = &blocks.attention {
            attention::run(&pass, heads, stream, segments, (&mut *attention, &mut *scratch), &mut [])?;
        }
    }
    Ok(())
}

/// Sets `stream` to what enters the first layer. Overwrites `branch` if there are several streams.
fn enter(
    context: &Context,
    (config, weights): (&Config, &Weights),
    segments: &[Segment],
    (places, pairs, scratch): (&[Place], &mut PairBuffers, &mut Scratch),
    (branch, stream): (&mut [f32], &mut [f32]),
) -> Result<(), Error> {
    if config.streams > 0 {
        embed(context, (config, &weights.embedding), segments, (places, scratch), branch)?;
        return streams::spread(context, config, branch, stream);
    }
    match &weights.rows {
        Some(rows) => row_inputs::begin(context, (config, rows), segments, (pairs, scratch), stream),
        None => embed(context, (config, &weights.embedding), segments, (places, scratch), stream),
    }
}

/// In the last layer, moves the rows that continue to the front of the buffers.
fn keep_continuing(
    segments: &[Segment],
    (config, blocks): (&Config, &Layer),
    (stream, normed, branch): (&mut [f32], &mut [f32], &mut [f32]),
    (inputs, experts, streams): (&mut LayerInputBuffers, &mut moe::ExpertBuffers, &mut streams::StreamBuffers),
) {
    let width = config.embedding_length;
    let counts = |segment: &Segment| (segment.tokens.len(), segment.kept);
    keep_last(segments, stream, config.stream_width(), counts);
    keep_last(segments, normed, width, counts);
    keep_last(segments, &mut experts.tokens, 1, counts);
    if config.streams > 0 {
        keep_last(segments, streams.weights(), config.streams * (config.streams + 2), counts);
    }
    layer_input::keep(config, segments, inputs);
    if let Some(Attention::Linear(_)) = blocks.attention {
        keep_last(segments, branch, width, counts);
    }
}

/// Buffers of the kinds of attention.
type AttentionKinds<'a> = (
    &'a mut attention::AttentionBuffers,
    &'a mut latent_attention::LatentBuffers,
    &'a mut shared_attention::SharedBuffers,
    &'a mut recurrent::RecurrentBuffers,
);

/// Sets the first rows of `output`, those that continue, to what the part of a layer that mixes tokens gives for `input`; a
/// matrix in place of attention sets all rows.
fn attend(
    pass: &Pass,
    block: &Attention,
    input: &[f32],
    segments: &mut [Segment],
    ((attention, latent, shared, recurrent), scratch): (AttentionKinds, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let rows = pass.places.len();
    let kept = pass.kept * pass.config.embedding_length;
    match block {
        Attention::Linear(linear) => project(pass.context, input, rows, scratch, &mut [(linear, output)]),
        Attention::Heads(heads) => {
            attention::run(pass, heads, input, segments, (attention, scratch), &mut output[..kept])
        }
        Attention::Latent(weights) => {
            let buffers = ((attention, scratch), latent);
            latent_attention::run(pass, weights, input, segments, buffers, &mut output[..kept])
        }
        Attention::Shared(weights) => {
            let buffers = ((attention, scratch), shared);
            shared_attention::run(pass, weights, input, segments, buffers, &mut output[..kept])
        }
        Attention::Recurrent(layer) => {
            recurrent::run(pass, layer, input, segments, (recurrent, scratch), &mut output[..kept])
        }
    }
}

/// Sets `normed` to the final states.
fn end(
    context: &Context,
    (config, weights): (&Config, &Weights),
    stream: &[f32],
    buffers: (&mut streams::StreamBuffers, &mut Scratch),
    normed: &mut [f32],
) -> Result<(), Error> {
    let norm = weights.output_norm.as_ref();
    if weights.output_link.is_none() && norm.is_none() {
        normed.copy_from_slice(stream);
        return Ok(());
    }
    entering(context, config, (weights.output_link.as_ref(), norm), stream, buffers, normed)?;
    Ok(())
}

/// Products of the final states with the output matrix.
fn logits_of(
    context: &Context,
    output: &Output,
    states: &[f32],
    rows: usize,
    scratch: &mut Scratch,
    logits: &mut [f32],
) -> Result<(), Error> {
    let Scratch { input: buffers, adapted, .. } = scratch;
    let addition = Addition { bias: None, changes: changes(adapted, rows, output.slot) };
    let job = Job { weights: &output.matrix, output: logits };
    Ok(matmul_with(context, states, rows, buffers, &mut [job], &[addition])?)
}

/// Applies the bias, scale and soft cap that some models have on their logits.
fn finish(context: &Context, config: &Config, bias: Option<&[f32]>, logits: &mut [f32]) -> Result<(), Error> {
    if let Some(bias) = bias {
        for row in logits.chunks_exact_mut(bias.len()) {
            row.iter_mut().zip(bias).for_each(|(logit, bias)| *logit += bias);
        }
    }
    scaled(context, logits, config.logit_scale)?;
    if config.logit_soft_cap > 0.0 {
        soft_cap(context, logits, config.logit_soft_cap)?;
    }
    Ok(())
}

/// What relative positions need, in models that have them.
fn distances(
    context: &Context,
    (config, weights): (&Config, &Weights),
    segments: &[Segment],
) -> Result<Option<Distances>, Error> {
    let longest = segments.iter().map(|segment| segment.tokens.len()).max().unwrap_or(0);
    weights.distances.as_ref().map(|table| Distances::of(context, config, table, longest)).transpose()
}

/// The token of every row.
fn tokens_of(segments: &[Segment], rows: usize) -> Result<Vec<u32>, Error> {
    let mut tokens = memory::room(rows, "tokens")?;
    tokens.extend(segments.iter().flat_map(|segment| segment.tokens));
    Ok(tokens)
}

/// The place of every row.
fn places(segments: &[Segment], rows: usize) -> Result<Vec<Place>, Error> {
    let mut places = memory::room(rows, "positions")?;
    for segment in segments {
        let &Segment { position, long, second_part, .. } = segment;
        let place = |(position, turned)| Place { position, turned, long, second: position >= second_part };
        places.extend((position..).zip(positions(segment)).map(place));
    }
    Ok(places)
}
