//! The forward pass: token ids in, logits out. It reads from top to bottom like a description of the architecture
//! (LLaMA, arXiv:2302.13971); models differ by switches in `Config` or by absent parts of a layer. Each block has its
//! own file.
//!
//! Every row of every buffer belongs to one token and is computed from that token's rows alone (attention also reads
//! the pages), in an order fixed by the kernels, so the results are bit-identical however tokens are grouped into
//! calls.

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::activation::{add, scale, soft_cap};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{Addition, Job, matmul_with};
use llamacpu_kernels::memory;

use crate::adapters::{AdaptedRows, changes};
use crate::attention;
use crate::config::{Config, Input, Norms};
use crate::distances::Distances;
use crate::embedding::{add_pictures, embed};
use crate::error::{Error, sized};
use crate::feed_forward::{NetworkBuffers, project, run_network};
use crate::hidden::Hidden;
use crate::layer_input::{self, LayerInputBuffers};
use crate::norms::{normalize, normalize_in_place};
use crate::pass::{Pass, Segment, keep_last};
use crate::picture_positions::positions;
use crate::rotations::{Angles, Place, Rotations};
use crate::row_inputs::{self, PairBuffers};
use crate::scratch::Scratch;
use crate::weights::{Attention, FeedForward, Layer, Norm, Output, Weights};
use crate::{cross_attention, latent_attention, moe, recurrent};

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
        recurrent,
        inner,
        experts,
        inputs,
        pairs,
        scratch,
    } = buffers;
    let mut stream = sized(stream, rows.checked_mul(width), "activations")?;
    let mut normed = sized(normed, rows.checked_mul(width), "activations")?;
    let mut branch = sized(branch, rows.checked_mul(width), "activations")?;

    let places = places(segments, rows)?;
    scratch.adapted = AdaptedRows::of(&segments.iter().map(Segment::adapted).collect::<Vec<_>>());
    enter(context, (config, weights), segments, (&places, pairs, scratch), stream)?;
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
            let input = match config.input {
                Input::Pairs => pairs.joined(rows, width),
                _ => normalized(context, config, blocks.attention_norm.as_ref(), stream, normed)?,
            };
            let (buffers, output) = ((&mut *attention, &mut *scratch), &mut branch[..behind * width]);
            match block {
                Attention::Heads(heads) => attention::run(&pass, heads, input, segments, buffers, output)?,
                Attention::Latent(weights) => {
                    latent_attention::run(&pass, weights, input, segments, (buffers, &mut *latent), output)?;
                }
                Attention::Recurrent(layer) => {
                    recurrent::run(&pass, layer, input, segments, (&mut *recurrent, &mut *scratch), output)?;
                }
                Attention::Linear(linear) => project(context, input, rows, scratch, &mut [(linear, &mut *branch)])?,
            }
        } else if config.parallel {
            normalized(context, config, blocks.attention_norm.as_ref(), stream, normed)?;
        }
        if last && kept < rows {
            if kept == 0 {
                return Ok(());
            }
            let counts = |segment: &Segment| (segment.tokens.len(), segment.kept);
            keep_last(segments, stream, width, counts);
            keep_last(segments, normed, width, counts);
            layer_input::keep(config, segments, inputs);
            if let Some(Attention::Linear(_)) = blocks.attention {
                keep_last(segments, branch, width, counts);
            }
            rows = kept;
            stream = &mut stream[..rows * width];
            normed = &mut normed[..rows * width];
            branch = &mut branch[..rows * width];
        }
        if config.parallel {
            normalized(context, config, blocks.feed_forward_norm.as_ref(), stream, normed)?;
        }
        if blocks.attention.is_some() {
            join_attention(context, config, blocks, (&mut *stream, &mut *branch, &mut *normed))?;
        }
        let buffers = (&mut *inner, &mut *experts, &mut *scratch);
        join_feed_forward(context, (config, blocks), (&mut *stream, &mut *normed, &mut *branch), buffers)?;
        if let Some(input) = &blocks.input {
            let buffers = (&mut *inputs, &mut *scratch);
            layer_input::join(context, (config, input), layer, (&mut *stream, &mut *branch), buffers)?;
        }
        scaled(context, stream, blocks.scale.unwrap_or(1.0))?;
        scratch.adapted.steer(layer, stream, width);
        add_pictures(config, segments, layer, stream);
        hidden.take(layer, stream);
    }

    end(context, (config, weights), stream, normed)?;
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

/// Sets `stream` to what enters the first layer.
fn enter(
    context: &Context,
    (config, weights): (&Config, &Weights),
    segments: &[Segment],
    (places, pairs, scratch): (&[Place], &mut PairBuffers, &mut Scratch),
    stream: &mut [f32],
) -> Result<(), Error> {
    match &weights.rows {
        Some(rows) => row_inputs::begin(context, (config, rows), segments, (pairs, scratch), stream),
        None => embed(context, (config, &weights.embedding), segments, (places, scratch), stream),
    }
}

/// Sets `normed` to the final states.
fn end(
    context: &Context,
    (config, weights): (&Config, &Weights),
    stream: &[f32],
    normed: &mut [f32],
) -> Result<(), Error> {
    let Some(norm) = &weights.output_norm else {
        normed.copy_from_slice(stream);
        return Ok(());
    };
    normalize(context, config, norm, stream, normed)
}

/// Adds what the feed-forward part of a layer gives, if there is one, to the stream. In parallel layers, `normed` is its
/// input. Overwrites `normed` and `branch`.
fn join_feed_forward(
    context: &Context,
    (config, blocks): (&Config, &Layer),
    (stream, normed, branch): (&mut [f32], &mut [f32], &mut [f32]),
    buffers: (&mut NetworkBuffers, &mut moe::ExpertBuffers, &mut Scratch),
) -> Result<(), Error> {
    let Some(block) = &blocks.feed_forward else { return Ok(()) };
    let input = if config.parallel {
        &*normed
    } else {
        normalized(context, config, blocks.feed_forward_norm.as_ref(), stream, normed)?
    };
    feed_forward(context, (config, block), (&*stream, input), buffers, branch)?;
    join(context, config, blocks.feed_forward_output_norm.as_ref(), stream, branch)
}

/// Sets `output` to what the network or the experts of a layer give for `input`.
fn feed_forward(
    context: &Context,
    (config, block): (&Config, &FeedForward),
    (stream, input): (&[f32], &[f32]),
    (inner, experts, scratch): (&mut NetworkBuffers, &mut moe::ExpertBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    match block {
        FeedForward::Dense(network) => {
            let rows = input.len() / config.embedding_length;
            run_network(context, config.activation, network, input, rows, (inner, scratch), output)
        }
        FeedForward::Experts(mixture) => {
            moe::mixture(context, (config, mixture), (input, input), (inner, experts, scratch), output)
        }
        FeedForward::Beside(both) => {
            moe::beside(context, (config, both), (stream, input), (inner, experts, scratch), output)
        }
    }
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

/// The input of a block: the normalized stream, or the stream itself if the block has no norm before it.
fn normalized<'a>(
    context: &Context,
    config: &Config,
    norm: Option<&Norm>,
    stream: &'a [f32],
    normed: &'a mut [f32],
) -> Result<&'a [f32], Error> {
    let Some(norm) = norm else { return Ok(stream) };
    normalize(context, config, norm, stream, normed)?;
    Ok(normed)
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

/// Adds the output of attention to the stream, and in some models its input once more. Overwrites `branch` and `normed`.
fn join_attention(
    context: &Context,
    config: &Config,
    blocks: &Layer,
    (stream, branch, normed): (&mut [f32], &mut [f32], &mut [f32]),
) -> Result<(), Error> {
    let again = blocks.second_attention_norm.as_ref();
    if again.is_some() {
        normed.copy_from_slice(stream);
    }
    join(context, config, blocks.attention_output_norm.as_ref(), stream, branch)?;
    if again.is_some() {
        add(context, stream, normed)?;
        normalize_in_place(context, config, again, stream)?;
    }
    Ok(())
}

/// Adds a block's output to the stream, normalizing one or the other where the model does so. Overwrites `branch`.
fn join(
    context: &Context,
    config: &Config,
    norm: Option<&Norm>,
    stream: &mut [f32],
    branch: &mut [f32],
) -> Result<(), Error> {
    let (of_branch, of_stream) = if config.norms == Norms::Stream { (None, norm) } else { (norm, None) };
    normalize_in_place(context, config, of_branch, branch)?;
    scaled(context, branch, config.residual_scale)?;
    add(context, stream, branch)?;
    normalize_in_place(context, config, of_stream, stream)
}

/// `values *= factor`, skipped if the factor is 1.
fn scaled(context: &Context, values: &mut [f32], factor: f32) -> Result<(), Error> {
    if factor == 1.0 { Ok(()) } else { Ok(scale(context, values, factor)?) }
}
