//! Which states of cross-attention belong to which picture of a session, and which of them a token sees.

use std::ops::Range;

/// The pictures of a session, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct CrossedPictures(Vec<Crossed>);

/// The states of one picture.
#[derive(Debug, Clone)]
struct Crossed {
    /// Position of the placeholder.
    position: usize,
    states: Range<usize>,
}

impl CrossedPictures {
    /// Adds a picture of so many states with its placeholder at `position`.
    pub(crate) fn record(&mut self, position: usize, states: usize) {
        let first = self.states();
        self.0.push(Crossed { position, states: first..first + states });
    }

    /// Forgets the pictures from position `tokens` on.
    pub(super) fn truncate(&mut self, tokens: usize) {
        self.0.retain(|picture| picture.position < tokens);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of states of all pictures.
    pub(crate) fn states(&self) -> usize {
        self.0.last().map_or(0, |picture| picture.states.end)
    }

    /// Number of states of the picture with its placeholder at `position`.
    pub(crate) fn states_of(&self, position: usize) -> usize {
        let picture = self.0.iter().find(|picture| picture.position == position);
        picture.map_or(0, |picture| picture.states.len())
    }

    /// The states that the token at a position sees: those of the last picture before it, and of others whose placeholders
    /// stand directly before that of the last one.
    pub(crate) fn seen_from(&self, position: usize) -> Option<Range<usize>> {
        let mut before = self.0.iter().rev().skip_while(|picture| picture.position > position);
        let last = before.next()?;
        let (mut start, mut next) = (last.states.start, last.position);
        for picture in before.take_while(|picture| {
            let adjacent = picture.position + 1 == next;
            next = picture.position;
            adjacent
        }) {
            start = picture.states.start;
        }
        Some(start..last.states.end)
    }
}
