//! Division of tokens into tiles.

use crate::Error;
use crate::memory::room;

/// The tokens of a tile.
#[derive(Clone, Copy)]
pub struct Span {
    /// The first token.
    pub first: usize,
    /// Number of tokens.
    pub count: usize,
    /// Index of `count` among the widths.
    pub index: usize,
}

/// Divides tokens into tiles of the given widths (ascending, from 1): as many as possible of the largest width, the rest in
/// smaller ones.
pub(super) fn spans(tokens: usize, widths: &[usize]) -> Result<Vec<Span>, Error> {
    let mut spans = room(tokens / widths.last().unwrap_or(&1) + widths.len(), "tiles of tokens")?;
    let mut first = 0;
    for (index, count) in widths.iter().copied().enumerate().rev() {
        while tokens - first >= count {
            spans.push(Span { first, count, index });
            first += count;
        }
    }
    Ok(spans)
}

/// Divides tokens into as few tiles as possible, of widths from `least` to `most` that are as equal as possible.
pub fn even_spans(tokens: usize, least: usize, most: usize) -> Result<Vec<Span>, Error> {
    let count = tokens.div_ceil(most);
    let (width, wider) = (tokens / count, tokens % count);
    let mut first = 0;
    let mut spans = room(count, "tiles of tokens")?;
    for tile in 0..count {
        let count = width + usize::from(tile < wider);
        spans.push(Span { first, count, index: count - least });
        first += count;
    }
    Ok(spans)
}

/// Divides few tokens into tiles of the given widths (ascending, from 1): evenly where there is every width, since a narrow
/// tile unpacks the weights for as little as one token.
pub fn direct_spans(tokens: usize, widths: &[usize]) -> Result<Vec<Span>, Error> {
    match widths.last() {
        Some(&most) if most == widths.len() => even_spans(tokens, 1, most),
        _ => spans(tokens, widths),
    }
}
