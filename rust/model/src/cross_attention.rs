//! Cross-attention to pictures (Llama 3.2 Vision, arXiv:2407.21783): some layers attend, without rotation and mask, to the
//! states that an encoder made of a picture, instead of to tokens. What attention and the feed-forward network add passes
//! a gate each. Tokens that no picture precedes skip the layer.
//!
//! Keys and values of the states do not change, so that they are computed once, when the picture enters the session, and
//! kept beside those of the tokens.

use std::ops::Range;
use std::sync::Arc;

use llamacpu_kernels::activation::{Activation, activate, add, scale};
use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, Visible, attention};
use llamacpu_kernels::context::Context;

use crate::adapters::{AdaptedRows, AdaptedText};
use crate::config::Config;
use crate::error::{Error, zeroed};
use crate::feed_forward::{NetworkBuffers, project, run_network};
use crate::kv::{Crossing, Kept, PageLayout, Pages};
use crate::norms::rows_norm;
use crate::pass::{Pass, Segment};
use crate::picture::PictureInput;
use crate::scratch::Scratch;
use crate::weights::{CrossAttention, Weights};

const PURPOSE: &str = "cross-attention";

/// Computes the keys and values of the states that stand among the tokens of the segments.
pub(crate) fn add_states(
    context: &Context,
    (config, weights): (&Config, &Weights),
    segments: &mut [Segment],
    scratch: &mut Scratch,
) -> Result<(), Error> {
    if config.cross_layers.is_empty() {
        return Ok(());
    }
    for segment in segments {
        let found = segment.own_pictures().filter_map(|(places, picture, _)| match &picture.input {
            PictureInput::States { states, .. } => Some((segment.position + places.start, Arc::clone(states))),
            PictureInput::Rows { .. } => None,
        });
        for (position, states) in found.collect::<Vec<_>>() {
            let rows = states.len() / config.embedding_length;
            let text = AdaptedText { position, rows: [rows; 3], adapters: segment.adapters.as_deref() };
            scratch.adapted = AdaptedRows::of(&[text]);
            add_picture(context, (config, weights), segment.pages, (position, &states), scratch)?;
        }
    }
    Ok(())
}

fn add_picture(
    context: &Context,
    (config, weights): (&Config, &Weights),
    pages: &mut Pages,
    (position, states): (usize, &[f32]),
    scratch: &mut Scratch,
) -> Result<(), Error> {
    if states.is_empty() {
        return Err(Error::Argument(
            "the tokens of a picture's cross-attention must be read again, which needs the states of the picture; start a \
             new session and give everything again"
                .to_owned(),
        ));
    }
    if pages.crossing.is_none() {
        let layout = PageLayout::new(&config.crossed(), pages.layout().kv_type(), pages.layout().spare())?;
        pages.crossing = Some(Box::new(Crossing::new(layout)));
    }
    let Some(crossing) = &mut pages.crossing else { return Ok(()) };
    crossing.truncate(position);
    let rows = states.len() / config.embedding_length;
    let first = crossing.pictures.states();
    crossing.pages.reserve(first, first + rows, first)?;
    let width = config.cross_kv_heads * config.key_size;
    let (mut key, mut value) = (zeroed(rows.checked_mul(width), PURPOSE)?, zeroed(rows.checked_mul(width), PURPOSE)?);
    for (index, block) in weights.layers.iter().filter_map(|layer| layer.cross.as_ref()).enumerate() {
        project(context, states, rows, scratch, &mut [(&block.key, &mut key), (&block.value, &mut value)])?;
        rows_norm(config, &block.key_norm).apply_in_place(context, &mut key, config.key_size)?;
        crossing.pages.write(context, Kept::Layer(index), first, &key, &value)?;
    }
    crossing.pictures.record(position, rows);
    Ok(())
}

/// The rows of a segment that see a picture: how many at its end, and what each of them sees.
fn seeing(segment: &Segment) -> Vec<Range<usize>> {
    let Some(crossing) = &segment.pages.crossing else { return Vec::new() };
    let positions = segment.position..segment.position + segment.tokens.len();
    positions.filter_map(|position| crossing.pictures.seen_from(position)).collect()
}

/// Runs a layer of cross-attention on the rows of `stream` that see a picture.
pub(crate) fn run(
    pass: &Pass,
    block: &CrossAttention,
    segments: &[Segment],
    (inner, scratch): (&mut NetworkBuffers, &mut Scratch),
    stream: &mut [f32],
) -> Result<(), Error> {
    let Pass { context, config, .. } = *pass;
    let width = config.embedding_length;
    let seen: Vec<_> = segments.iter().map(seeing).collect();
    let rows: usize = seen.iter().map(Vec::len).sum();
    if rows == 0 {
        return Ok(());
    }
    // The rows that see a picture are the last ones of their segments.
    let mut places = Vec::with_capacity(segments.len());
    let mut end = 0;
    for (segment, seen) in segments.iter().zip(&seen) {
        end += segment.tokens.len();
        places.push((end - seen.len()) * width..end * width);
    }
    let texts = segments.iter().zip(&seen).map(|(segment, seen)| {
        let position = segment.position + segment.tokens.len() - seen.len();
        AdaptedText { position, rows: [seen.len(); 3], adapters: segment.adapters.as_deref() }
    });
    let all = std::mem::replace(&mut scratch.adapted, AdaptedRows::of(&texts.collect::<Vec<_>>()));
    let room = || zeroed(rows.checked_mul(width), PURPOSE);
    let (mut own, mut normed, mut branch) = (room()?, room()?, room()?);
    let mut from = 0;
    for place in &places {
        own[from..from + place.len()].copy_from_slice(&stream[place.clone()]);
        from += place.len();
    }

    let query_width = config.cross_heads * config.key_size;
    let room = || zeroed(rows.checked_mul(query_width), PURPOSE);
    let (mut query, mut attended) = (room()?, room()?);
    rows_norm(config, &block.attention_norm).apply(context, &own, &mut normed)?;
    project(context, &normed, rows, scratch, &mut [(&block.query, &mut query)])?;
    rows_norm(config, &block.query_norm).apply_in_place(context, &mut query, config.key_size)?;
    attend(pass, (segments, &seen), &query, &mut attended)?;
    project(context, &attended, rows, scratch, &mut [(&block.output, &mut branch)])?;
    add_gated(context, block.attention_gate, &mut own, &mut branch)?;
    rows_norm(config, &block.feed_forward_norm).apply(context, &own, &mut normed)?;
    run_network(context, config.function(), &block.network, &normed, rows, (inner, scratch), &mut branch)?;
    add_gated(context, block.feed_forward_gate, &mut own, &mut branch)?;

    let mut from = 0;
    for place in places {
        let len = place.len();
        stream[place].copy_from_slice(&own[from..from + len]);
        from += len;
    }
    scratch.adapted = all;
    Ok(())
}

/// Attention of the rows to what they see.
fn attend(
    pass: &Pass,
    (segments, seen): (&[Segment], &[Vec<Range<usize>>]),
    query: &[f32],
    attended: &mut [f32],
) -> Result<(), Error> {
    let config = pass.config;
    let width = config.cross_heads * config.key_size;
    let index = config.cross_layers.iter().filter(|&&layer| layer < pass.layer).count();
    let shared = AttentionConfig::new(config.cross_heads, config.score_scale(&pass.sizes));
    let (mut queries, mut outputs) = (query, attended);
    for (segment, seen) in segments.iter().zip(seen) {
        let Some(crossing) = segment.pages.crossing.as_ref().filter(|_| !seen.is_empty()) else { continue };
        let states = crossing.pictures.states();
        let pages = crossing.pages.layer_slices(Kept::Layer(index), states)?;
        let mut items = Vec::new();
        // An item has no more queries than positions.
        for ranges in seen.chunks(states) {
            let (own_queries, other_queries) = queries.split_at(ranges.len() * width);
            let (own_output, other_outputs) = outputs.split_at_mut(ranges.len() * width);
            (queries, outputs) = (other_queries, other_outputs);
            items.push(AttentionItem {
                queries: own_queries,
                first_position: states - ranges.len(),
                pages: &pages,
                output: own_output,
                visible: Visible::Ranges(ranges),
                bias: None,
            });
        }
        attention(pass.context, crossing.pages.layout().layout(Kept::Layer(index))?, &shared, &mut items)?;
    }
    Ok(())
}

/// `stream += tanh(gate) * branch`.
fn add_gated(context: &Context, gate: f32, stream: &mut [f32], branch: &mut [f32]) -> Result<(), Error> {
    let mut factor = [gate];
    activate(context, Activation::Tanh, &mut factor)?;
    scale(context, branch, factor[0])?;
    Ok(add(context, stream, branch)?)
}
