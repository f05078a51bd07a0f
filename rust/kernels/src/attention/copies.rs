//! Copies of selected keys and values in pages of their own.

use std::ops::Range;

use super::masks::{Selected, inside};
use super::pages::{KvLayout, PAGE_TOKENS};
use super::scores::{CHUNK, CHUNK_PAGES};
use crate::Error;
use crate::mapping::AlignedBytes;

/// Copying a key and a value costs about as much as their products with so many query heads.
const COPY_ROWS: usize = 24;

/// Whether it is faster to copy `selected` keys than to go over all `visible` ones, for so many query heads that share them.
pub fn worth_copying(selected: usize, visible: usize, group: usize) -> bool {
    selected.saturating_mul(group + COPY_ROWS) < visible.saturating_mul(group) / 4 * 3
}

/// Copies of keys and values, at most [`CHUNK`].
#[derive(Default)]
pub(super) struct Copies {
    /// Pages with one head.
    pub(super) bytes: Option<AlignedBytes>,
    /// The positions of the copies, in ascending order.
    pub(super) positions: Vec<usize>,
    /// Chunks of the sequence, and the copies that belong to each.
    pub(super) chunks: Vec<(usize, Range<usize>)>,
}

impl Copies {
    /// Makes room for pages of this layout.
    pub(super) fn prepare(&mut self, layout: &KvLayout) -> Result<(), Error> {
        let needed = own_layout(layout).layer_bytes().saturating_mul(CHUNK_PAGES);
        if self.bytes.as_ref().is_none_or(|bytes| bytes.len() < needed) {
            self.bytes = None;
            self.bytes = Some(AlignedBytes::zeroed(needed)?);
        }
        Ok(())
    }

    /// Notes the selected ones of the positions that the first query of a block sees, in as many of these chunks as there is room for; returns the rest of the chunks.
    pub(super) fn note(&mut self, selected: &Selected, seen: &Range<usize>, chunks: Range<usize>) -> Range<usize> {
        self.positions.clear();
        self.chunks.clear();
        for chunk in chunks.clone() {
            let words = selected.part(0, chunk);
            let visible = inside(seen, chunk * CHUNK, CHUNK);
            let first = self.positions.len();
            for (page, word) in words.iter().take(CHUNK_PAGES).enumerate() {
                let mut rest = *word;
                while rest != 0 {
                    let place = page * PAGE_TOKENS + rest.trailing_zeros() as usize;
                    rest &= rest - 1;
                    if visible.contains(&place) {
                        self.positions.push(chunk * CHUNK + place);
                    }
                }
            }
            if self.positions.len() > CHUNK {
                // At least one chunk fits.
                self.positions.truncate(first);
                return chunk..chunks.end;
            }
            if first < self.positions.len() {
                self.chunks.push((chunk, first..self.positions.len()));
            }
        }
        chunks.end..chunks.end
    }
}

/// The layout of copies.
pub(super) fn own_layout(layout: &KvLayout) -> KvLayout {
    KvLayout { kv_heads: 1, ..*layout }
}
