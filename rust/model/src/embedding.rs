//! The initial state of every token: its embedding plus, in models that have them, the embeddings of its position and
//! type (J. Devlin et al., "BERT", arXiv:1810.04805).

use llamacpu_kernels::activation::scale;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::low_rank::{LowRankJob, LowRankTerm, add_low_rank};
use llamacpu_kernels::matmul::Table;
use llamacpu_kernels::memory;

use crate::adapters::AdaptedRows;
use crate::config::Config;
use crate::error::{Error, sized};
use crate::norms::normalize_in_place;
use crate::pass::Segment;
use crate::picture::PictureInput;
use crate::rotations::Place;
use crate::rows::{for_rows, multiply};
use crate::scratch::Scratch;
use crate::weights::Embedding;

/// Sets every row of `stream` to the initial state of its token.
pub(crate) fn embed(
    context: &Context,
    (config, weights): (&Config, &Embedding),
    segments: &[Segment],
    (places, scratch): (&[Place], &mut Scratch),
    stream: &mut [f32],
) -> Result<(), Error> {
    let mut tokens: Vec<u32> = memory::room(places.len(), "tokens")?;
    tokens.extend(segments.iter().flat_map(Segment::table_rows));
    look_up(context, (config, weights), &tokens, Some(scratch), stream)?;
    change_types(&scratch.adapted, places, stream, config.embedding_length);
    for_pictures(config, segments, stream, 0, <[f32]>::copy_from_slice);
    complete(context, (config, weights), places, stream)
}

/// Adds the part of the rows of pictures that belongs behind a layer to the stream.
pub(crate) fn add_pictures(config: &Config, segments: &[Segment], layer: usize, stream: &mut [f32]) {
    if layer < config.picture_layers {
        for_pictures(config, segments, stream, layer + 1, add);
    }
}

/// Calls `join` with the row of the stream and a part of the row of a picture, for all rows of pictures.
fn for_pictures(
    config: &Config,
    segments: &[Segment],
    stream: &mut [f32],
    part: usize,
    join: impl Fn(&mut [f32], &[f32]),
) {
    let (width, length) = (config.embedding_length, config.picture_row_length());
    let mut first = 0;
    for segment in segments {
        for (places, picture, row) in segment.own_pictures() {
            if let PictureInput::Rows { rows, .. } = &picture.input {
                let output = &mut stream[(first + places.start) * width..(first + places.end) * width];
                let rows = rows[row * length..].chunks_exact(length);
                for (output, row) in output.chunks_exact_mut(width).zip(rows) {
                    join(output, &row[part * width..][..width]);
                }
            }
        }
        first += segment.tokens.len();
    }
}

/// Sets every row of `stream` to the initial state of the token of that row, with what adapters change, if there are any.
pub(crate) fn embed_rows(
    context: &Context,
    (config, weights): (&Config, &Embedding),
    tokens: &[u32],
    (places, mut scratch): (&[Place], Option<&mut Scratch>),
    stream: &mut [f32],
) -> Result<(), Error> {
    look_up(context, (config, weights), tokens, scratch.as_deref_mut(), stream)?;
    if let Some(scratch) = scratch {
        change_types(&scratch.adapted, places, stream, config.embedding_length);
    }
    complete(context, (config, weights), places, stream)
}

/// Sets rows to the embeddings of tokens, scaled.
fn look_up(
    context: &Context,
    (config, weights): (&Config, &Embedding),
    tokens: &[u32],
    scratch: Option<&mut Scratch>,
    stream: &mut [f32],
) -> Result<(), Error> {
    let width = config.embedding_length;
    let Some(table) = &weights.tokens else {
        return Err(Error::Argument("the model takes rows in place of tokens".to_owned()));
    };
    for_rows(context, stream, width, &|row, output| table.row(tokens[row] as usize, output))?;
    if let Some(scratch) = scratch {
        add_changes(context, scratch, tokens, stream, width)?;
    }
    if config.embedding_scale != 1.0 {
        scale(context, stream, config.embedding_scale)?;
    }
    Ok(())
}

/// Adds what adapters change of the embeddings of types.
fn change_types(adapted: &AdaptedRows, places: &[Place], stream: &mut [f32], width: usize) {
    for run in adapted.runs(places.len()) {
        for (adapter, scale) in run.set.map_or(&[][..], |set| adapted.adapters(set)) {
            for row in run.rows.clone() {
                let Some(change) = adapter.token_type(places[row].second) else { continue };
                let output = &mut stream[row * width..][..width];
                output.iter_mut().zip(change).for_each(|(value, more)| *value += scale * more);
            }
        }
    }
}

/// Adds types and positions, and normalizes.
fn complete(
    context: &Context,
    (config, weights): (&Config, &Embedding),
    places: &[Place],
    stream: &mut [f32],
) -> Result<(), Error> {
    let width = config.embedding_length;
    if !weights.token_types.is_empty() || weights.positions.is_some() {
        for_rows(context, stream, width, &|row, output| {
            if let Some(token_type) = weights.token_type(places[row].second) {
                add(output, token_type);
            }
            if let Some(positions) = &weights.positions {
                add(output, &positions[places[row].position * width..][..width]);
            }
            Ok(())
        })?;
    }
    normalize_in_place(context, config, weights.norm.as_ref(), stream)
}

fn add(values: &mut [f32], more: &[f32]) {
    values.iter_mut().zip(more).for_each(|(value, more)| *value += more);
}

/// Adds what adapters change to the embeddings of tokens: the numbers of a token are looked up, too.
fn add_changes(
    context: &Context,
    Scratch { adapted, low, .. }: &mut Scratch,
    tokens: &[u32],
    stream: &mut [f32],
    width: usize,
) -> Result<(), Error> {
    for run in adapted.runs(tokens.len()) {
        let adapters = run.set.map_or(&[][..], |set| adapted.adapters(set));
        for (adapter, scale) in adapters {
            let Some(pair) = adapter.embedding() else { continue };
            let (tokens, rank) = (&tokens[run.rows.clone()], pair.up.rank());
            let low = sized(low, tokens.len().checked_mul(rank), "adapters")?;
            for (token, numbers) in tokens.iter().zip(low.chunks_exact_mut(rank)) {
                pair.down.row(*token as usize, numbers)?;
                multiply(numbers, scale * pair.factor);
            }
            let term = LowRankTerm { up: &pair.up, low, stride: rank };
            let job = LowRankJob { terms: vec![term], tokens: tokens.len(), output: 0, place: (run.rows.start, 0) };
            add_low_rank(context, &mut [Table { numbers: &mut *stream, width }], &[job])?;
        }
    }
    Ok(())
}
