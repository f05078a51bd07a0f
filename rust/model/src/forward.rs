//! The forward pass: token ids in, logits out. It reads from top to bottom like the description of the architecture
//! (LLaMA, arXiv:2302.13971; grouped queries, arXiv:2305.13245); what differs between models is a switch of `Config` or a
//! weight that may be absent.
//!
//! Every row of every buffer belongs to one token and is computed from that token's rows alone (attention reads the
//! pages), in an order that the kernels fix: so the same bits come out however tokens are grouped into calls.

use llamacpu_kernels::Error as KernelError;
use llamacpu_kernels::activation::{add, scale};
use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, Visible, attention};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{InputBuffers, Job, matmul};
use llamacpu_kernels::memory;
use llamacpu_kernels::norm::rms_norm;
use llamacpu_kernels::rope::Rope;

use crate::config::Config;
use crate::error::{Error, sized};
use crate::feed_forward::{Gated, project, run_network};
use crate::hidden::Hidden;
use crate::kv::Pages;
use crate::moe;
use crate::rows::for_rows;
use crate::weights::{FeedForward, Weights};

/// Consecutive tokens of one session: its rows in this chunk.
pub(crate) struct Segment<'a> {
    pub(crate) pages: &'a mut Pages,
    pub(crate) tokens: &'a [u32],
    /// Position of the first token.
    pub(crate) position: usize,
    /// How many of the last tokens get logits.
    pub(crate) wanted: usize,
    /// How many of the last tokens go through the whole last layer: at least those that get logits.
    pub(crate) kept: usize,
}

/// Intermediate results, kept from step to step; rows × the width in the comment.
#[derive(Default)]
pub(crate) struct Buffers {
    /// embedding: the residual stream
    stream: Vec<f32>,
    /// embedding: what goes into a block
    normed: Vec<f32>,
    /// embedding: what a block adds to the stream
    branch: Vec<f32>,
    /// heads × key size
    query: Vec<f32>,
    /// key and value heads × key size
    key: Vec<f32>,
    /// key and value heads × value size
    value: Vec<f32>,
    /// heads × value size
    attended: Vec<f32>,
    /// rotated elements: cosines and sines of the row's position
    angles: Vec<f32>,
    gated: Gated,
    experts: moe::Buffers,
    scratch: InputBuffers,
}

/// Runs the tokens of all segments through the model, writes their keys and values, and sets `logits` (wanted rows ×
/// vocabulary, in the order of the segments) and the hidden states that were asked for.
pub(crate) fn forward(
    context: &Context,
    (config, weights, rope): (&Config, &Weights, &Rope),
    segments: &mut [Segment],
    buffers: &mut Buffers,
    hidden: &mut Hidden,
    logits: &mut [f32],
) -> Result<(), Error> {
    let width = config.embedding_length;
    let epsilon = config.rms_epsilon;
    let mut rows: usize = segments.iter().map(|segment| segment.tokens.len()).sum();
    let wanted: usize = segments.iter().map(|segment| segment.wanted).sum();
    let kept: usize = segments.iter().map(|segment| segment.kept).sum();
    let [query_width, key_width, value_width, _] = config.widths();
    let Buffers {
        stream,
        normed,
        branch,
        query,
        key,
        value,
        attended,
        angles,
        gated,
        experts: expert_buffers,
        scratch,
    } = buffers;
    let size = |width: usize| rows.checked_mul(width);
    let mut stream = sized(stream, size(width), "activations")?;
    let mut normed = sized(normed, size(width), "activations")?;
    let mut branch = sized(branch, size(width), "activations")?;
    let query = sized(query, size(query_width), "queries")?;
    let key = sized(key, size(key_width), "keys")?;
    let value = sized(value, size(value_width), "values")?;
    let attended = sized(attended, size(query_width), "attention")?;
    let angles = sized(angles, size(config.rope.size), "positions")?;

    let mut tokens: Vec<u32> = memory::room(rows, "tokens")?;
    tokens.extend(segments.iter().flat_map(|segment| segment.tokens));
    embed(context, config, weights, &tokens, stream)?;
    rotation(context, rope, segments, config.rope.size, angles)?;

    for (index, layer) in weights.layers.iter().enumerate() {
        if context.interrupted.is_some_and(|interrupted| interrupted()) {
            return Err(KernelError::Cancelled.into());
        }
        let sizes = config.layer(index);
        let (query_row, key_row, value_row) = (sizes.query_width(), sizes.key_width(), sizes.value_width());

        rms_norm(context, stream, &layer.attention_norm, epsilon, normed)?;
        let mut query = &mut query[..rows * query_row];
        let key = &mut key[..rows * key_row];
        let value = &mut value[..rows * value_row];
        let mut projections = [(&layer.query, &mut *query), (&layer.key, &mut *key), (&layer.value, &mut *value)];
        project(context, normed, rows, scratch, &mut projections)?;
        rotate(context, rope, config, angles, query, query_row)?;
        rotate(context, rope, config, angles, key, key_row)?;
        write_pages(context, index, segments, (key, key_row), (value, value_row))?;

        let last = index + 1 == weights.layers.len();
        if last && kept < rows {
            if kept == 0 {
                return Ok(());
            }
            keep_last(segments, stream, width, |segment| (segment.tokens.len(), segment.kept));
            keep_last(segments, query, query_row, |segment| (segment.tokens.len(), segment.kept));
            rows = kept;
            stream = &mut stream[..rows * width];
            normed = &mut normed[..rows * width];
            branch = &mut branch[..rows * width];
            query = &mut query[..rows * query_row];
        }
        let attended = &mut attended[..rows * sizes.attended_width()];
        attend(context, config, index, segments, last, query, attended)?;
        project(context, attended, rows, scratch, &mut [(&layer.attention_output, &mut *branch)])?;
        add_scaled(context, stream, branch, config.residual_scale)?;

        rms_norm(context, stream, &layer.feed_forward_norm, epsilon, normed)?;
        match &layer.feed_forward {
            FeedForward::Dense(network) => run_network(context, network, normed, rows, (gated, scratch), branch)?,
            FeedForward::Experts { router, experts } => {
                let buffers = (&mut *gated, &mut *expert_buffers, &mut *scratch);
                moe::mixture(context, config, (router, experts), normed, buffers, branch)?;
            }
        }
        add_scaled(context, stream, branch, config.residual_scale)?;
        hidden.take(index, stream);
    }

    rms_norm(context, stream, &weights.output_norm, epsilon, normed)?;
    hidden.take(weights.layers.len(), normed);
    if wanted == 0 {
        return Ok(());
    }
    keep_last(segments, normed, width, |segment| (segment.kept, segment.wanted));
    let normed = &normed[..wanted * width];
    matmul(context, normed, wanted, scratch, &mut [Job { weights: &weights.output, output: logits }])?;
    scaled(context, logits, config.logit_scale)
}

/// Sets every row of `stream` to the embedding of its token.
fn embed(
    context: &Context,
    config: &Config,
    weights: &Weights,
    tokens: &[u32],
    stream: &mut [f32],
) -> Result<(), Error> {
    for_rows(context, stream, config.embedding_length, &|row, output| {
        weights.embedding.row(tokens[row] as usize, output)
    })?;
    scaled(context, stream, config.embedding_scale)
}

/// Sets every row of `angles` to the cosines and sines of its position.
fn rotation(
    context: &Context,
    rope: &Rope,
    segments: &[Segment],
    rope_size: usize,
    angles: &mut [f32],
) -> Result<(), Error> {
    if rope_size == 0 {
        return Ok(());
    }
    let count = segments.iter().map(|segment| segment.tokens.len()).sum();
    let mut positions: Vec<usize> = memory::room(count, "positions")?;
    positions.extend(segments.iter().flat_map(|segment| segment.position..segment.position + segment.tokens.len()));
    for_rows(context, angles, rope_size, &|row, output| rope.table(positions[row], output))
}

/// Rotates the heads of every row by the row's position.
fn rotate(
    context: &Context,
    rope: &Rope,
    config: &Config,
    angles: &[f32],
    data: &mut [f32],
    row_size: usize,
) -> Result<(), Error> {
    let size = config.rope.size;
    if size == 0 {
        return Ok(());
    }
    for_rows(context, data, row_size, &|row, heads| {
        rope.apply(context.isa, heads, config.key_size, &angles[row * size..(row + 1) * size])
    })
}

/// Stores the keys and values of every row at its position.
fn write_pages(
    context: &Context,
    layer: usize,
    segments: &mut [Segment],
    (key, key_row): (&[f32], usize),
    (value, value_row): (&[f32], usize),
) -> Result<(), Error> {
    let mut row = 0;
    for segment in segments {
        let end = row + segment.tokens.len();
        let keys = &key[row * key_row..end * key_row];
        let values = &value[row * value_row..end * value_row];
        segment.pages.write(context, layer, segment.position, keys, values)?;
        row = end;
    }
    Ok(())
}

/// Moves the last rows of every segment to the front of `data`; `count` says how many rows a segment has and how many
/// of them stay.
fn keep_last(segments: &[Segment], data: &mut [f32], row_size: usize, count: impl Fn(&Segment) -> (usize, usize)) {
    let (mut end, mut kept) = (0, 0);
    for segment in segments {
        let (rows, staying) = count(segment);
        end += rows;
        if end - staying != kept {
            data.copy_within((end - staying) * row_size..end * row_size, kept * row_size);
        }
        kept += staying;
    }
}

/// Attention of every row to the positions up to its own. In the last layer only the kept rows are left.
fn attend(
    context: &Context,
    config: &Config,
    layer: usize,
    segments: &[Segment],
    last: bool,
    query: &[f32],
    attended: &mut [f32],
) -> Result<(), Error> {
    let sizes = config.layer(layer);
    let Some(first) = segments.first() else { return Ok(()) };
    let layout = first.pages.layout().layer(layer);
    let rows = |segment: &Segment| if last { segment.kept } else { segment.tokens.len() };
    let end = |segment: &Segment| segment.position + segment.tokens.len();
    let pages = segments.iter().map(|segment| segment.pages.layer_slices(layer, end(segment)));
    let pages = pages.collect::<Result<Vec<_>, Error>>()?;
    let (mut queries, mut outputs) = (query, attended);
    let mut items = Vec::with_capacity(segments.len());
    for (segment, pages) in segments.iter().zip(&pages) {
        let count = rows(segment);
        let (own_queries, other_queries) = queries.split_at(count * sizes.query_width());
        let (own_output, other_outputs) = outputs.split_at_mut(count * sizes.attended_width());
        (queries, outputs) = (other_queries, other_outputs);
        if count > 0 {
            items.push(AttentionItem {
                queries: own_queries,
                first_position: end(segment) - count,
                pages,
                output: own_output,
                visible: Visible::Causal,
                bias: None,
            });
        }
    }
    let shared = AttentionConfig::new(sizes.heads, config.score_scale());
    attention(context, layout, &shared, &mut items)?;
    Ok(())
}

/// `stream += branch * factor`; `branch` is overwritten.
fn add_scaled(context: &Context, stream: &mut [f32], branch: &mut [f32], factor: f32) -> Result<(), Error> {
    scaled(context, branch, factor)?;
    Ok(add(context, stream, branch)?)
}

/// `values *= factor`, where there is something to do.
fn scaled(context: &Context, values: &mut [f32], factor: f32) -> Result<(), Error> {
    if factor == 1.0 { Ok(()) } else { Ok(scale(context, values, factor)?) }
}
