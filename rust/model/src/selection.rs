//! The keys that sparse attention sees.

use std::ops::Range;

/// The keys that the rows of a pass see: for each row `words` words of bits, a bit for each position.
#[derive(Default)]
pub(crate) struct Selection {
    pub(crate) words: usize,
    pub(crate) bits: Vec<u64>,
}

impl Selection {
    /// The words of some rows.
    pub(crate) fn of(&self, rows: Range<usize>) -> &[u64] {
        &self.bits[rows.start * self.words..rows.end * self.words]
    }
}
