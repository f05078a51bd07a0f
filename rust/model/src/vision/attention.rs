//! Attention among the rows of a picture, by the kernels of the language model: keys and values lie in pages.

use std::sync::{Mutex, PoisonError};

use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, KvLayout, KvType, PAGE_TOKENS, Visible, attention};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::mapping::AlignedBytes;
use llamacpu_kernels::memory;

use super::places::Places;
use crate::Error;
use crate::error::zeroed;

const PURPOSE: &str = "attention of a picture";

/// Keys and values of a layer, in pages, one sequence of rows after the other.
pub(super) struct VisionPages {
    layout: KvLayout,
    bytes: AlignedBytes,
    /// Pages of a sequence.
    count: usize,
}

/// Queries, keys and values of all rows.
pub(super) struct Projections<'a> {
    pub(super) query: &'a [f32],
    pub(super) key: &'a [f32],
    pub(super) value: &'a [f32],
}

impl VisionPages {
    /// Room for `sequences` times so many rows, stored as `kv_type`.
    pub(super) fn new(
        kv_type: KvType,
        (heads, head_size): (usize, usize),
        rows: usize,
        sequences: usize,
    ) -> Result<Self, Error> {
        let (key_size, value_size) = (head_size, head_size);
        let layout = KvLayout { kv_type, kv_heads: heads, key_size, value_size, latent: false };
        let count = rows.div_ceil(PAGE_TOKENS);
        let bytes = layout.layer_bytes().checked_mul(count).and_then(|bytes| bytes.checked_mul(sequences));
        let bytes = bytes.ok_or(Error::Memory { bytes: usize::MAX, purpose: PURPOSE })?;
        Ok(Self { layout, bytes: AlignedBytes::mapped(bytes, PURPOSE)?, count })
    }

    /// Attention of every row to the rows of its sequence that it sees; `windowed` says whether only to its square.
    pub(super) fn attend(
        &mut self,
        context: &Context,
        places: &Places,
        windowed: bool,
        Projections { query, key, value }: Projections,
        output: &mut [f32],
    ) -> Result<(), Error> {
        let rows = places.len();
        let layout = self.layout;
        let pages = self.store(context, rows, (key, value))?;
        let row = layout.kv_heads * layout.key_size;
        let visible = match (windowed, places.everything.is_empty()) {
            (true, _) => Visible::Ranges(&places.squares),
            (false, true) => Visible::All,
            (false, false) => Visible::Ranges(&places.everything),
        };
        let sequences = query.chunks_exact(rows * row).zip(output.chunks_exact_mut(rows * row)).zip(&pages);
        let mut items: Vec<_> = sequences
            .map(|((queries, output), pages)| AttentionItem {
                queries,
                first_position: 0,
                pages,
                output,
                visible,
                bias: None,
            })
            .collect();
        attend(context, &layout, &mut items)
    }

    /// Attention of the same queries to all rows of each sequence; the output holds those of each sequence in turn.
    pub(super) fn attend_to_all(
        &mut self,
        context: &Context,
        rows: usize,
        (query, key, value): (&[f32], &[f32], &[f32]),
        output: &mut [f32],
    ) -> Result<(), Error> {
        let layout = self.layout;
        let row = layout.kv_heads * layout.key_size;
        let everything = vec![0..rows; query.len() / row];
        let pages = self.store(context, rows, (key, value))?;
        let mut items = Vec::new();
        for (output, pages) in output.chunks_exact_mut(query.len()).zip(&pages) {
            // An item has no more queries than positions.
            for (queries, output) in query.chunks(rows * row).zip(output.chunks_mut(rows * row)) {
                let count = queries.len() / row;
                items.push(AttentionItem {
                    queries,
                    first_position: rows - count,
                    pages,
                    output,
                    visible: Visible::Ranges(&everything[..count]),
                    bias: None,
                });
            }
        }
        attend(context, &layout, &mut items)
    }

    /// Writes keys and values of sequences of `rows` rows into their pages.
    fn store(
        &mut self,
        context: &Context,
        rows: usize,
        (key, value): (&[f32], &[f32]),
    ) -> Result<Vec<Vec<&[u8]>>, Error> {
        let layout = self.layout;
        let row = layout.kv_heads * layout.key_size;
        let count = self.count;
        // The last group of tiles may have fewer of them.
        let bytes = &mut self.bytes[..key.len() / (rows * row) * count * layout.layer_bytes()];
        let mut pieces = memory::room(bytes.len() / layout.layer_bytes(), PURPOSE)?;
        pieces.extend(bytes.chunks_exact_mut(layout.layer_bytes()).map(|page| Mutex::new((page, Ok(())))));
        context.for_each(pieces.len(), &|piece| {
            let mut guard = pieces[piece].lock().unwrap_or_else(PoisonError::into_inner);
            let (page, outcome) = &mut *guard;
            let sequence = piece / count * rows;
            let start = sequence + piece % count * PAGE_TOKENS;
            let end = (start + PAGE_TOKENS).min(sequence + rows);
            *outcome = layout.write(context.isa, page, 0, &key[start * row..end * row], &value[start * row..end * row]);
        })?;
        for piece in pieces {
            piece.into_inner().unwrap_or_else(PoisonError::into_inner).1?;
        }
        let sequences = bytes.chunks_exact(layout.layer_bytes() * count);
        Ok(sequences.map(|sequence| sequence.chunks_exact(layout.layer_bytes()).collect()).collect())
    }
}

fn attend(context: &Context, layout: &KvLayout, items: &mut [AttentionItem]) -> Result<(), Error> {
    let scale = 1.0 / (layout.key_size as f32).sqrt();
    Ok(attention(context, layout, &AttentionConfig::new(layout.kv_heads, scale), items)?)
}

/// Room for `rows` rows of `width`.
pub(super) fn room(rows: usize, width: usize) -> Result<Vec<f32>, Error> {
    zeroed(rows.checked_mul(width), "a picture")
}
