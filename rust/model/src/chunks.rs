//! A step runs through the layers in chunks of tokens: large enough for fast matrix products, small enough to cancel
//! quickly.

use llamacpu_kernels::context::{Context, Observer};

use crate::cross_attention::add_states;
use crate::error::zeroed;
use crate::forward::{PassBuffers, forward};
use crate::hidden::Hidden;
use crate::input_squares::InputSquares;
use crate::model::{Interrupted, Model};
use crate::pass::Segment;
use crate::picture_inputs::{check_known, fitting};
use crate::picture_positions::shift_behind;
use crate::recurrent::run_again;
use crate::session::Held;
use crate::step_item::{StepItem, Wanted};
use crate::{Config, Error};

/// Maximum number of tokens that go through the layers together: enough to run matrix products at full speed, few
/// enough for small buffers and quick cancellation.
const CHUNK_TOKENS: usize = 512;
/// The rows of a chunk are also bounded by the memory of their activations, in bytes.
const CHUNK_BYTES: usize = 256 << 20;

/// Runs the chunks of a step one after the other.
pub(crate) fn run(
    model: &Model,
    items: &[StepItem],
    sessions: &mut [Held],
    buffers: &mut PassBuffers,
    hidden: &mut Hidden,
    (interrupted, squares): (Option<Interrupted>, Option<&InputSquares>),
) -> Result<Vec<f32>, Error> {
    let (context, config, weights) = model.parts(interrupted);
    let context = Context { observer: squares.map(|squares| squares as &dyn Observer), ..context };
    let rows = items.iter().map(|item| match item.wanted {
        Wanted::None => 0,
        Wanted::Last => 1,
        Wanted::All => item.tokens.len(),
    });
    let mut logits = zeroed(rows.sum::<usize>().checked_mul(config.vocab_size), "logits")?;
    let mut filled = 0;
    let mut done = vec![0; items.len()];
    let shifts = shifts(config, items, sessions)?;
    let mut current = 0;
    while current < items.len() {
        let mut room = chunk_rows(config);
        let mut segments = Vec::new();
        for (index, (item, session)) in items.iter().zip(sessions.iter_mut()).enumerate().skip(current) {
            let left = &item.tokens[done[index]..];
            // Tokens that see later tokens go through the layers together with their whole text.
            if !config.causal && left.len() > room && !segments.is_empty() {
                break;
            }
            let count = if config.causal {
                fitting(item.pictures, done[index]..item.tokens.len(), room, segments.is_empty())
            } else {
                left.len()
            };
            if count == 0 {
                break;
            }
            let tokens = &left[..count];
            let position = session.position + done[index];
            let wanted = match item.wanted {
                Wanted::None => 0,
                Wanted::Last => usize::from(tokens.len() == left.len()),
                Wanted::All => tokens.len(),
            };
            // Drops nothing that the session needs if this step fails.
            session.pages.release(position, Some(session.position));
            session.pages.reserve(position, position + tokens.len(), session.position)?;
            let pictures = (item.pictures, done[index]);
            done[index] += tokens.len();
            room = room.saturating_sub(tokens.len());
            current = if tokens.len() == left.len() { index + 1 } else { index };
            let kept = if hidden.needs_last_layer() { tokens.len() } else { wanted };
            let long = model.rotations().is_long(item.session.context());
            let second_part = item.session.first_part();
            let adapters = item.session.adapters()?;
            let pages = &mut session.pages;
            let shift = shifts.get(index).copied().unwrap_or(0);
            segments.push(Segment {
                pages,
                tokens,
                rows: &[],
                together: false,
                pictures,
                position,
                shift,
                long,
                second_part,
                wanted,
                kept,
                adapters,
            });
            if room == 0 {
                break;
            }
        }
        let wanted: usize = segments.iter().map(|segment| segment.wanted).sum();
        let end = filled + wanted * config.vocab_size;
        let parts = (config, weights, model.rotations());
        let rows = segments.iter().map(|segment| segment.tokens.len()).sum();
        add_states(&context, (config, weights), &mut segments, buffers.scratch())?;
        forward(&context, parts, &mut segments, buffers, hidden, &mut logits[filled..end])?;
        for segment in &mut segments {
            segment.pages.commit();
        }
        hidden.advance(rows);
        filled = end;
    }
    Ok(logits)
}

/// How far the positions of the rotation lie from the places at the end of every session; empty if they are the same.
fn shifts(config: &Config, items: &[StepItem], sessions: &[Held]) -> Result<Vec<isize>, Error> {
    if config.rope.sections.is_empty() {
        return Ok(Vec::new());
    }
    let shift = |(item, session): (&StepItem, &Held)| {
        let pictures = item.session.pictures()?;
        let before = || pictures.iter().filter(|picture| picture.start < session.position);
        check_known(&item.session.tokens()?[..session.position], before(), false)?;
        Ok::<_, Error>(shift_behind(before()))
    };
    items.iter().zip(sessions).map(shift).collect()
}

/// Computes the keys and values, and states, that sessions lack because they were rewound.
pub(crate) fn recompute(
    model: &Model,
    items: &[StepItem],
    sessions: &mut [Held],
    buffers: &mut PassBuffers,
    interrupted: Option<Interrupted>,
) -> Result<(), Error> {
    for (item, session) in items.iter().zip(sessions) {
        let position = session.position;
        if session.pages.hold(position) {
            continue;
        }
        let (context, _, weights) = model.parts(interrupted);
        if run_again(&context, weights, &mut session.pages, position)? {
            continue;
        }
        let (tokens, pictures) = (item.session.tokens()?, item.session.pictures()?);
        check_known(&tokens, pictures.iter(), true)?;
        // Places of pictures count from the beginning.
        let start = if pictures.is_empty() { session.pages.begin_again(position) } else { session.pages.begin_anew() };
        let again =
            StepItem { session: item.session, tokens: &tokens[start..], pictures: &pictures, wanted: Wanted::None };
        let mut hidden = Hidden::new(&[], model.config().layers, model.config().embedding_length, 0)?;
        session.position = start;
        let done = run(model, &[again], std::slice::from_mut(session), buffers, &mut hidden, (interrupted, None));
        session.position = position;
        done?;
        session.pages.finish();
    }
    Ok(())
}

/// Rows per chunk: fewer when rows are very wide.
fn chunk_rows(config: &Config) -> usize {
    let [query, key, value, inner] = config.widths();
    let experts = config.experts_used.saturating_mul(config.embedding_length);
    let inputs = 2 * config.layers * config.per_layer_input;
    let recurrent = config.recurrent_width();
    let streams = config.streams.saturating_mul(2 * config.embedding_length);
    let row = [4 * config.embedding_length, streams, 2 * query, key, value, inner, inner, experts, inputs, recurrent]
        .into_iter()
        .fold(0usize, usize::saturating_add)
        .saturating_mul(size_of::<f32>());
    (CHUNK_BYTES / row.max(1)).clamp(1, CHUNK_TOKENS)
}
