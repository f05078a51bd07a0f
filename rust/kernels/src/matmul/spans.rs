//! Division of tokens into tiles.

use crate::Error;
use crate::memory::room;

/// The tokens of a tile.
#[derive(Clone, Copy)]
pub(super) struct Span {
    /// The first token.
    pub(super) first: usize,
    /// Number of tokens.
    pub(super) count: usize,
    /// Index of `count` among the widths.
    pub(super) index: usize,
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
