//! Attention with shared rows (DeepSeek-AI, "DeepSeek-V4", 2026): one row per token is the key and the value of all heads. Since
//! the row is rotated, the output of attention is turned back at the query's position. A token sees the rows of its window,
//! and in some layers compressed entries, all of them or those that a few small heads choose.
//!
//! Entries come before the rows of the window in the order of sums, which depends on the query's position alone.

use std::ops::Range;

use llamacpu_kernels::attention::{
    AttentionConfig, AttentionItem, IndexerItem, PAGE_TOKENS, Visible, attention, select_keys,
};
use llamacpu_kernels::matmul::Table;
use llamacpu_kernels::memory;

use crate::attention::{AttentionBuffers, keep_rows, write_pages};
use crate::compressor::{self, CompressorBuffers};
use crate::error::{Error, sized};
use crate::feed_forward::project;
use crate::kv::Kept;
use crate::latent_attention::each_head;
use crate::norms::{normalize, normalize_heads_of, normalize_in_place};
use crate::pass::{Pass, Segment};
use crate::rows::multiply;
use crate::scratch::Scratch;
use crate::weights::{Chooser, SharedRows};

const PURPOSE: &str = "attention";

/// Buffers of attention with shared rows; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct SharedBuffers {
    /// latent size of queries
    between: Vec<f32>,
    /// the same, normalized
    latent: Vec<f32>,
    /// groups × rank
    outputs: Vec<f32>,
    /// indexer heads × size
    ranking: Vec<f32>,
    /// indexer heads
    factors: Vec<f32>,
    compressor: CompressorBuffers,
}

/// Same as [`crate::attention::run`], for shared rows.
pub(crate) fn run(
    pass: &Pass,
    weights: &SharedRows,
    input: &[f32],
    segments: &mut [Segment],
    ((buffers, scratch), own): ((&mut AttentionBuffers, &mut Scratch), &mut SharedBuffers),
    output: &mut [f32],
) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = pass;
    let (rows, size) = (pass.places.len(), sizes.key_size);
    let still = size - config.rotated(sizes);
    let query_row = sizes.query_width();
    let AttentionBuffers { query, key, attended, .. } = buffers;
    let between = sized(&mut own.between, rows.checked_mul(config.query_latent_size), PURPOSE)?;
    let latent = sized(&mut own.latent, rows.checked_mul(config.query_latent_size), PURPOSE)?;
    let key = sized(key, rows.checked_mul(size), PURPOSE)?;
    project(context, input, rows, scratch, &mut [(&weights.query_down, &mut *between), (&weights.row, &mut *key)])?;
    normalize_in_place(context, config, Some(&weights.row_norm), key)?;
    pass.rotations.turn(context, pass.angles, sizes.rotation, (&mut *key, size), (size, still))?;
    write_pages(pass, Kept::Layer(pass.layer), segments, (key, size), (&[], 0))?;
    compressor::run(pass, weights, input, segments, (&mut own.compressor, scratch))?;
    if pass.kept == 0 {
        return Ok(());
    }

    normalize(context, config, &weights.query_norm, between, latent)?;
    let query = sized(query, rows.checked_mul(query_row), PURPOSE)?;
    project(context, latent, rows, scratch, &mut [(&weights.query_up, &mut *query)])?;
    normalize_heads_of(context, config, size, query)?;
    pass.rotations.turn(context, pass.angles, sizes.rotation, (&mut *query, query_row), (size, still))?;
    if let Some(chooser) = &weights.chooser {
        let buffers = (&mut own.ranking, &mut own.factors, &mut *scratch);
        rank(pass, chooser, (input, latent), segments, buffers)?;
    }
    keep_rows(pass, segments, query, query_row);
    let seen = seen(pass, segments, (&own.ranking, &own.factors))?;
    let attended = sized(attended, pass.kept.checked_mul(query_row), PURPOSE)?;
    attend(pass, &weights.sinks, segments, &seen, &query[..pass.kept * query_row], attended)?;
    let positions = |row: usize| seen[row].position;
    pass.rotations.turn_back_at(context, sizes.rotation, &positions, (&mut *attended, query_row), (size, still))?;

    let rank = config.output_rank;
    let outputs = sized(&mut own.outputs, pass.kept.checked_mul(config.output_groups * rank), PURPOSE)?;
    let from = Table { numbers: &*attended, width: query_row };
    let to = Table { numbers: &mut *outputs, width: config.output_groups * rank };
    let stride = query_row / config.output_groups;
    each_head(context, &weights.groups, pass.kept, (from, stride), (to, rank), scratch)?;
    project(context, outputs, pass.kept, scratch, &mut [(&weights.output, output)])
}

/// What a row that continues sees: compressed entries, and behind them the pages of its window.
struct Seen {
    position: usize,
    /// Number of entries that are complete, and of the pages that hold them.
    entries: usize,
    entry_pages: usize,
    /// The pages that hold the window.
    pages: Range<usize>,
    /// A bit for each place in these pages.
    words: Vec<u64>,
}

/// Computes the queries by which entries are chosen, and the factors of their heads, of the rows that continue.
fn rank(
    pass: &Pass,
    weights: &Chooser,
    (input, latent): (&[f32], &[f32]),
    segments: &[Segment],
    (ranking, factors, scratch): (&mut Vec<f32>, &mut Vec<f32>, &mut Scratch),
) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = pass;
    let (rows, heads, size) = (pass.places.len(), config.indexer_heads, config.indexer_size);
    let row = heads * size;
    let ranking = sized(ranking, rows.checked_mul(row), PURPOSE)?;
    let factors = sized(factors, rows.checked_mul(heads), PURPOSE)?;
    project(context, latent, rows, scratch, &mut [(&weights.query, &mut *ranking)])?;
    let still = size - config.rotated(sizes);
    pass.rotations.turn(context, pass.angles, sizes.rotation, (&mut *ranking, row), (size, still))?;
    project(context, input, rows, scratch, &mut [(&weights.weights, &mut *factors)])?;
    multiply(factors, 1.0 / (row as f32).sqrt());
    keep_rows(pass, segments, ranking, row);
    keep_rows(pass, segments, factors, heads);
    Ok(())
}

/// What the rows that continue see.
fn seen(pass: &Pass, segments: &[Segment], (ranking, factors): (&[f32], &[f32])) -> Result<Vec<Seen>, Error> {
    let Pass { context, config, sizes, .. } = pass;
    let mut all: Vec<Seen> = memory::room(pass.kept, PURPOSE)?;
    for position in segments.iter().flat_map(|segment| continuing(pass, segment)) {
        let entries = (position + 1).checked_div(sizes.compression).unwrap_or(0);
        let entry_pages = entries.div_ceil(PAGE_TOKENS);
        let first = sizes.sight.first(position);
        let pages = first / PAGE_TOKENS..position / PAGE_TOKENS + 1;
        let mut words: Vec<u64> = memory::room(entry_pages + pages.len(), PURPOSE)?;
        words.resize(entry_pages + pages.len(), 0);
        let start = pages.start * PAGE_TOKENS;
        let behind = |position: usize| position - start + entry_pages * PAGE_TOKENS;
        let window = behind(first)..behind(position) + 1;
        let unranked = if sizes.indexer { 0..0 } else { 0..entries };
        for place in unranked.chain(window) {
            words[place / PAGE_TOKENS] |= 1 << (place % PAGE_TOKENS);
        }
        all.push(Seen { position, entries, entry_pages, pages, words });
    }
    if !sizes.indexer {
        return Ok(all);
    }
    let kept = Kept::Indexer(pass.layer);
    let (heads, row) = (config.indexer_heads, config.indexer_heads * config.indexer_size);
    let Some(first) = segments.first() else { return Ok(all) };
    let layout = first.pages.layout().layout(kept)?;
    let slices = slices(pass, segments, kept)?;
    let mut items = memory::room(all.len(), PURPOSE)?;
    let mut rows = all.iter_mut().enumerate();
    for (segment, slices) in segments.iter().zip(&slices) {
        for (index, seen) in rows.by_ref().take(continuing(pass, segment).len()) {
            if seen.entries == 0 {
                continue;
            }
            items.push(IndexerItem {
                queries: &ranking[index * row..(index + 1) * row],
                weights: &factors[index * heads..(index + 1) * heads],
                first_position: seen.entries - 1,
                pages: &slices[..seen.entry_pages],
                selected: &mut seen.words[..seen.entry_pages],
            });
        }
    }
    select_keys(context, layout, (heads, config.indexer_top), &mut items)?;
    drop(items);
    Ok(all)
}

/// The positions of the rows of a segment that continue.
fn continuing(pass: &Pass, segment: &Segment) -> Range<usize> {
    let end = segment.position + segment.tokens.len();
    end - if pass.last { segment.kept } else { segment.tokens.len() }..end
}

/// The pages of every segment: of all its entries, or of all its tokens.
fn slices<'a>(pass: &Pass, segments: &'a [Segment], kept: Kept) -> Result<Vec<Vec<&'a [u8]>>, Error> {
    let places = |segment: &Segment| {
        let tokens = segment.position + segment.tokens.len();
        if let Kept::Layer(_) = kept { tokens } else { tokens.checked_div(pass.sizes.compression).unwrap_or(0) }
    };
    segments.iter().map(|segment| segment.pages.layer_slices(kept, places(segment))).collect()
}

/// Attention of every row that continues to what it sees.
fn attend(
    pass: &Pass,
    sinks: &[f32],
    segments: &[Segment],
    seen: &[Seen],
    query: &[f32],
    attended: &mut [f32],
) -> Result<(), Error> {
    let Pass { context, config, sizes, layer, .. } = pass;
    let Some(first) = segments.first() else { return Ok(()) };
    let layout = first.pages.layout().layout(Kept::Layer(*layer))?;
    let tokens = slices(pass, segments, Kept::Layer(*layer))?;
    let entries = match sizes.compression {
        0 => vec![Vec::new(); segments.len()],
        _ => slices(pass, segments, Kept::Entry(*layer))?,
    };
    let mut pages: Vec<Vec<&[u8]>> = memory::room(seen.len(), PURPOSE)?;
    let mut rows = seen.iter();
    for ((segment, tokens), entries) in segments.iter().zip(&tokens).zip(&entries) {
        for row in rows.by_ref().take(continuing(pass, segment).len()) {
            let mut own = memory::room(row.words.len(), PURPOSE)?;
            own.extend_from_slice(&entries[..row.entry_pages]);
            own.extend_from_slice(&tokens[row.pages.clone()]);
            pages.push(own);
        }
    }
    let row_size = sizes.query_width();
    let rows = query.chunks_exact(row_size).zip(attended.chunks_exact_mut(row_size)).zip(seen.iter().zip(&pages));
    let items = rows.map(|((queries, output), (row, pages))| AttentionItem {
        queries,
        first_position: row.position - row.pages.start * PAGE_TOKENS + row.entry_pages * PAGE_TOKENS,
        pages,
        output,
        visible: Visible::Selected(&row.words),
        bias: None,
    });
    let mut items: Vec<_> = items.collect();
    let scale = config.score_scale(sizes);
    let shared = AttentionConfig { sinks: Some(sinks), ..AttentionConfig::new(sizes.heads, scale) };
    Ok(attention(context, layout, &shared, &mut items)?)
}
