//! What blocks read of the residual stream, and how their output joins it.

use llamacpu_kernels::activation::{add, scale};
use llamacpu_kernels::context::Context;

use crate::config::{Config, Norms};
use crate::error::Error;
use crate::feed_forward::{NetworkBuffers, run_network};
use crate::norms::{normalize, normalize_in_place};
use crate::scratch::Scratch;
use crate::weights::{FeedForward, Layer, Link, Norm};
use crate::{moe, streams};

/// Adds what the feed-forward part of a layer gives, if there is one, to the stream. In parallel layers, `normed` is its
/// input. Overwrites `normed` and `branch`.
pub(crate) fn join_feed_forward(
    context: &Context,
    (config, blocks): (&Config, &Layer),
    (stream, normed, branch): (&mut [f32], &mut [f32], &mut [f32]),
    buffers: (&mut NetworkBuffers, &mut moe::ExpertBuffers, &mut Scratch),
    streams: &mut streams::StreamBuffers,
) -> Result<(), Error> {
    let Some(block) = &blocks.feed_forward else { return Ok(()) };
    if let Some(links) = &blocks.links {
        let (inner, experts, scratch) = buffers;
        let link = (Some(&links.feed_forward), blocks.feed_forward_norm.as_ref());
        let input = entering(context, config, link, stream, (&mut *streams, &mut *scratch), normed)?;
        feed_forward(context, (config, block), (input, input), (inner, experts, scratch), branch)?;
        return streams::mix(context, config, branch, streams, stream);
    }
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
            run_network(context, config.function(), network, input, rows, (inner, scratch), output)
        }
        FeedForward::Experts(mixture) => {
            moe::mixture(context, (config, mixture), (input, input), (inner, experts, scratch), output)
        }
        FeedForward::Beside(both) => {
            moe::beside(context, (config, both), (stream, input), (inner, experts, scratch), output)
        }
    }
}

/// The input of a block, or of what follows the last one: the normalized stream, or the normalized sum of several.
pub(crate) fn entering<'a>(
    context: &Context,
    config: &Config,
    (link, norm): (Option<&Link>, Option<&Norm>),
    stream: &'a [f32],
    buffers: (&mut streams::StreamBuffers, &mut Scratch),
    normed: &'a mut [f32],
) -> Result<&'a [f32], Error> {
    let Some(link) = link else { return normalized(context, config, norm, stream, normed) };
    streams::collapse(context, (config, link), stream, buffers, normed)?;
    normalize_in_place(context, config, norm, normed)?;
    Ok(normed)
}

/// The input of a block: the normalized stream, or the stream itself if the block has no norm before it.
pub(crate) fn normalized<'a>(
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

/// Adds the output of attention to the stream, and in some models its input once more. Overwrites `branch` and `normed`.
pub(crate) fn join_attention(
    context: &Context,
    (config, blocks): (&Config, &Layer),
    (stream, branch, normed): (&mut [f32], &mut [f32], &mut [f32]),
    streams: &mut streams::StreamBuffers,
) -> Result<(), Error> {
    if blocks.links.is_some() {
        return streams::mix(context, config, branch, streams, stream);
    }
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
pub(crate) fn scaled(context: &Context, values: &mut [f32], factor: f32) -> Result<(), Error> {
    if factor == 1.0 { Ok(()) } else { Ok(scale(context, values, factor)?) }
}
