//! Sizes and switches of attention over packed sequences.

use std::ops::Range;

use crate::Error;
use crate::attention::Visible;

/// Sizes and switches of attention over packed sequences.
#[derive(Debug, Clone, Copy)]
pub struct AttentionShape<'a> {
    /// Starts of the sequences, and at the end the number of tokens.
    pub segments: &'a [usize],
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements of a query or key head.
    pub key_size: usize,
    /// Elements of a value head.
    pub value_size: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// A score per query head that takes part in the softmax, but has no value.
    pub sinks: Option<&'a [f32]>,
    /// What a query sees of its own sequence: `Causal`, `Window` or `Chunk`.
    pub visible: Visible<'a>,
}

impl AttentionShape<'_> {
    pub(super) fn tokens(&self) -> usize {
        self.segments.last().copied().unwrap_or(0)
    }

    /// Checks the sizes of queries, keys, values, outputs and logarithms.
    pub(super) fn check(&self, [query, key, value, output, logarithms]: [usize; 5]) -> Result<(), Error> {
        let tokens = self.tokens();
        let sizes = [
            self.heads * self.key_size,
            self.kv_heads * self.key_size,
            self.kv_heads * self.value_size,
            self.heads * self.value_size,
            self.heads,
        ];
        let found = [query, key, value, output, logarithms];
        let ascending = self.segments.first() == Some(&0) && self.segments.is_sorted();
        let fits = sizes.iter().zip(found).all(|(size, found)| tokens.checked_mul(*size) == Some(found));
        let heads = self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads);
        let sinks = self.sinks.is_none_or(|sinks| sinks.len() == self.heads);
        let visible =
            !matches!(self.visible, Visible::All | Visible::Ranges(_) | Visible::Window(0) | Visible::Chunk(0));
        if ascending && fits && heads && sinks && visible {
            return Ok(());
        }
        Err(Error::Shape(format!(
            "attention of {tokens} tokens with {} heads, {} key and value heads and numbers {found:?}; expected {sizes:?} a token, \
             ascending segments from 0 on, and a causal view",
            self.heads, self.kv_heads
        )))
    }

    /// The first position that the query at a position sees.
    pub(super) fn first(&self, position: usize) -> usize {
        match self.visible {
            Visible::Window(size) => (position + 1).saturating_sub(size),
            Visible::Chunk(size) => position / size * size,
            _ => 0,
        }
    }

    /// Sequence, key and value head of a piece.
    pub(super) fn piece(&self, piece: usize) -> (Range<usize>, usize) {
        let (segment, head) = (piece / self.kv_heads, piece % self.kv_heads);
        (self.segments[segment]..self.segments[segment + 1], head)
    }
}
