//! Sparse attention (DeepSeek-AI, "DeepSeek-V3.2", 2025): an indexer, which is a few small heads with a cache of keys of their
//! own, ranks the keys before each token, and attention sees the best of them. Some layers see those that an earlier layer
//! has chosen.
//!
//! What a token sees depends on the keys up to its own alone, so that no split of a text and no batch changes it.

use llamacpu_kernels::attention::{IndexerItem, PAGE_TOKENS, select_keys};
use llamacpu_kernels::memory;

use crate::attention::{keep_rows, write_pages};
use crate::error::{Error, sized};
use crate::feed_forward::project;
use crate::kv::Kept;
use crate::norms::normalize_in_place;
use crate::pass::{Pass, Segment, keep_last};
use crate::rows::multiply;
use crate::scratch::Scratch;
use crate::selection::Selection;
use crate::weights::Indexer;

const PURPOSE: &str = "indexers";

/// Buffers of indexers; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct IndexerBuffers {
    /// size
    key: Vec<f32>,
    /// heads × size
    query: Vec<f32>,
    /// heads
    weights: Vec<f32>,
    selection: Selection,
    /// Whether any row sees fewer than all keys before it.
    sparse: bool,
}

impl IndexerBuffers {
    /// What the rows see; `None` if they see all keys.
    pub(crate) fn selection(&self) -> Option<&Selection> {
        self.sparse.then_some(&self.selection)
    }
}

/// Stores the indexer's keys of all rows, and chooses the keys that the rows which continue see. Without an indexer, the rows
/// see those that were chosen before. `states` are the input of attention, and the latent vectors of the queries.
pub(crate) fn run(
    pass: &Pass,
    weights: Option<&Indexer>,
    (input, latent): (&[f32], &[f32]),
    segments: &mut [Segment],
    (buffers, scratch): (&mut IndexerBuffers, &mut Scratch),
) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = *pass;
    let rows = pass.places.len();
    let Some(weights) = weights else {
        if config.indexer.is_empty() {
            buffers.sparse = false;
        } else if buffers.sparse && pass.kept < rows {
            let Selection { words, bits } = &mut buffers.selection;
            keep_last(segments, bits, *words, |segment| (segment.tokens.len(), segment.kept));
        }
        return Ok(());
    };
    let (heads, size) = (config.indexer_heads, config.indexer_size);
    let key = sized(&mut buffers.key, rows.checked_mul(size), PURPOSE)?;
    project(context, input, rows, scratch, &mut [(&weights.key, &mut *key)])?;
    normalize_in_place(context, config, Some(&weights.key_norm), key)?;
    pass.rotations.turn_indexer(context, pass.angles, sizes.rotation, (&mut *key, size), size)?;
    write_pages(pass, Kept::Indexer(pass.layer), segments, (key, size), (&[], 0))?;

    let end = |segment: &Segment| segment.position + segment.tokens.len();
    let longest = segments.iter().map(end).max().unwrap_or(0);
    buffers.sparse = longest > config.indexer_top && pass.kept > 0;
    if !buffers.sparse {
        return Ok(());
    }
    let row = heads * size;
    let query = sized(&mut buffers.query, rows.checked_mul(row), PURPOSE)?;
    let latent = &latent[..rows * config.query_latent_size];
    project(context, latent, rows, scratch, &mut [(&weights.query, &mut *query)])?;
    pass.rotations.turn_indexer(context, pass.angles, sizes.rotation, (&mut *query, row), size)?;
    let factors = sized(&mut buffers.weights, rows.checked_mul(heads), PURPOSE)?;
    project(context, input, rows, scratch, &mut [(&weights.weights, &mut *factors)])?;
    multiply(factors, 1.0 / (row as f32).sqrt());
    keep_rows(pass, segments, query, row);
    keep_rows(pass, segments, factors, heads);

    let words = longest.div_ceil(PAGE_TOKENS);
    let Selection { words: stride, bits } = &mut buffers.selection;
    *stride = words;
    memory::resize(bits, pass.kept.saturating_mul(words), 0, PURPOSE)?;
    let kept = Kept::Indexer(pass.layer);
    let pages = segments.iter().map(|segment| segment.pages.layer_slices(kept, end(segment)));
    let pages = pages.collect::<Result<Vec<_>, Error>>()?;
    let Some(first) = segments.first() else { return Ok(()) };
    let layout = first.pages.layout().layout(kept)?;
    let (mut queries, mut factors, mut bits) = (&query[..pass.kept * row], &*factors, &mut bits[..]);
    let mut items = Vec::with_capacity(segments.len());
    for (segment, pages) in segments.iter().zip(&pages) {
        let count = if pass.last { segment.kept } else { segment.tokens.len() };
        let (own_queries, other_queries) = queries.split_at(count * row);
        let (own_factors, other_factors) = factors.split_at(count * heads);
        let (selected, others) = bits.split_at_mut(count * words);
        (queries, factors, bits) = (other_queries, other_factors, others);
        if count > 0 {
            let first_position = end(segment) - count;
            items.push(IndexerItem { queries: own_queries, weights: own_factors, first_position, pages, selected });
        }
    }
    Ok(select_keys(context, layout, (heads, config.indexer_top), &mut items)?)
}
