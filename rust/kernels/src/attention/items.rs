//! The input of an attention call, and the checks of its sizes.

use std::ops::Range;

use super::pages::{KvLayout, KvType, PAGE_TOKENS};
use crate::Error;
use crate::math::power;
use crate::memory::room;

/// The configuration shared by all items of a call.
#[derive(Debug, Clone, Copy)]
pub struct AttentionConfig<'a> {
    /// Number of query heads: a multiple of the number of key and value heads.
    pub heads: usize,
    /// Factor of the products of queries and keys.
    pub scale: f32,
    /// Scores become `cap * tanh(score / cap)` (Gemma 2).
    pub soft_cap: Option<f32>,
    /// One score for each query head that takes part in the softmax but has no value (G. Xiao et al., "Efficient Streaming
    /// Language Models with Attention Sinks", 2023; gpt-oss).
    pub sinks: Option<&'a [f32]>,
    /// One number for each query head: the product with the distance of query and key is subtracted from the score, after
    /// the cap (O. Press et al., "ALiBi", arXiv:2108.12409). See [`alibi_slopes`].
    pub slopes: Option<&'a [f32]>,
}

impl AttentionConfig<'_> {
    /// A configuration with neither a cap nor sinks nor slopes.
    pub fn new(heads: usize, scale: f32) -> Self {
        Self { heads, scale, soft_cap: None, sinks: None, slopes: None }
    }
}

/// The slopes of ALiBi: `2^(-largest · k / n)` for k = 1, 2 ... up to the greatest power of two n that is no more than
/// `heads`; the heads that remain take every second slope of twice as many, the first, third and so on.
pub fn alibi_slopes(heads: usize, largest: f64) -> Vec<f32> {
    let count = if heads == 0 { 1 } else { 1 << heads.ilog2() };
    let slope =
        |numerator: usize, denominator: usize| power(2.0, -largest * numerator as f64, denominator as f64) as f32;
    (0..heads)
        .map(|head| if head < count { slope(head + 1, count) } else { slope(2 * (head - count) + 1, 2 * count) })
        .collect()
}

/// The positions that the queries of an item see. A query that sees nothing gets zeros.
#[derive(Debug, Clone, Copy)]
pub enum Visible<'a> {
    /// All positions up to the query's own.
    Causal,
    /// That many positions, up to and including the query's own: sliding windows.
    Window(usize),
    /// The positions up to the query's own within the same chunk, where the sequence is divided into chunks of that many
    /// positions (Llama 4).
    Chunk(usize),
    /// All positions up to that of the last query: encoders.
    All,
    /// A range for each query, which may extend up to the position of the last query.
    Ranges(&'a [Range<usize>]),
    /// Some of the positions up to the query's own (sparse attention, see [`super::select_keys`]): for each query as many words
    /// of 64 bits, one for each page at least, of which bit `i` of word `p` stands for position `64 · p + i`.
    Selected(&'a [u64]),
}

/// Attention of some consecutive tokens of one sequence.
pub struct AttentionItem<'a> {
    /// `n × heads × key_size` elements, with rotary embeddings already applied.
    pub queries: &'a [f32],
    /// Position of the first query.
    pub first_position: usize,
    /// One layer's part of each page of the sequence, in order; together they hold at least the positions below
    /// `first_position + n`. A page that no query sees may be absent: an empty slice.
    pub pages: &'a [&'a [u8]],
    /// `n × heads × value_size` elements; overwritten.
    pub output: &'a mut [f32],
    /// The positions that the queries see.
    pub visible: Visible<'a>,
    /// `heads × n × (first_position + n)` values that are added to the scores, after the cap.
    pub bias: Option<&'a [f32]>,
}

/// The read-only part of an item.
pub(super) struct Input<'a> {
    pub(super) queries: &'a [f32],
    pub(super) pages: &'a [&'a [u8]],
    /// Positions that each query sees.
    pub(super) visible: Vec<Range<usize>>,
    pub(super) bias: &'a [f32],
    /// Words of bits as in [`Visible::Selected`]; empty if queries see all positions of their ranges.
    pub(super) selected: &'a [u64],
    /// Number of positions up to and including that of the last query.
    pub(super) positions: usize,
}

impl<'a> Input<'a> {
    /// Checks the sizes.
    pub(super) fn new(layout: &KvLayout, heads: usize, item: &AttentionItem<'a>) -> Result<Self, Error> {
        let wrong = |what: String| Err(Error::Shape(format!("attention: {what}")));
        let (row, out_row) = (heads * layout.key_size, heads * layout.value_size);
        let count = item.queries.len() / row;
        if item.queries.len() != count * row || item.output.len() != count * out_row {
            return wrong(format!(
                "{} numbers of queries and {} of output; expected {row} and {out_row} for each token",
                item.queries.len(),
                item.output.len()
            ));
        }
        let places = item.pages.len().saturating_mul(PAGE_TOKENS);
        let positions = item.first_position.checked_add(count).filter(|end| *end <= places);
        let Some(positions) = positions else {
            return wrong(format!("{count} queries from position {} on, but pages for {places}", item.first_position));
        };
        let bias = item.bias.unwrap_or(&[]);
        let expected = heads.checked_mul(count).and_then(|rows| rows.checked_mul(positions));
        if item.bias.is_some() && Some(bias.len()) != expected {
            return wrong(format!(
                "a bias of {} numbers; expected {heads} heads × {count} queries × {positions} positions",
                bias.len()
            ));
        }
        let selected = match item.visible {
            Visible::Selected(words) => words,
            _ => &[],
        };
        let words = selected.len().checked_div(count).unwrap_or(0);
        if matches!(item.visible, Visible::Selected(_))
            && (words * count != selected.len() || count > 0 && words < positions.div_ceil(PAGE_TOKENS))
        {
            return wrong(format!(
                "{} words of selected positions for {count} queries; expected as many for each, and one for every page of \
                 {positions} positions",
                selected.len()
            ));
        }
        let visible = visible(item, count, positions)?;
        check_pages(layout, item.pages, &visible)?;
        Ok(Self { queries: item.queries, pages: item.pages, visible, bias, selected, positions })
    }

    /// Numbers of positions that some queries have selected, and that they could have selected; the first is the largest number
    /// if there is no selection.
    pub(super) fn counts(&self, queries: Range<usize>) -> (usize, usize) {
        let stride = self.selected_stride();
        if stride == 0 {
            return (usize::MAX, 0);
        }
        let words = &self.selected[queries.start * stride..queries.end * stride];
        let selected = words.iter().map(|word| word.count_ones() as usize).sum();
        (selected, self.visible[queries].iter().map(Range::len).sum())
    }

    /// Words of selected positions for each query.
    pub(super) fn selected_stride(&self) -> usize {
        self.selected.len().checked_div(self.visible.len()).unwrap_or(0)
    }
}

/// The positions that each query sees: ranges inside `0..positions`, possibly empty.
fn visible(item: &AttentionItem, count: usize, positions: usize) -> Result<Vec<Range<usize>>, Error> {
    let wrong = |what: String| Err(Error::Shape(format!("attention: {what}")));
    let mut ranges = room(count, "attention")?;
    let own = item.first_position..positions;
    match item.visible {
        Visible::Causal | Visible::Selected(_) => ranges.extend(own.map(|position| 0..position + 1)),
        Visible::Window(0) | Visible::Chunk(0) => return wrong("windows of no positions; expected at least 1".into()),
        Visible::Window(size) => {
            ranges.extend(own.map(|position| (position + 1).saturating_sub(size)..position + 1));
        }
        Visible::Chunk(size) => ranges.extend(own.map(|position| position / size * size..position + 1)),
        Visible::All => ranges.extend(own.map(|_| 0..positions)),
        Visible::Ranges(given) => {
            if given.len() != count {
                return wrong(format!("{} ranges of positions for {count} queries; expected one each", given.len()));
            }
            if let Some(range) = given.iter().find(|range| range.end > positions) {
                return wrong(format!("a query sees {range:?}; expected positions below {positions}"));
            }
            ranges.extend(given.iter().map(|range| range.start.min(range.end)..range.end));
        }
    }
    Ok(ranges)
}

/// Checks that pages have the right size and that all visible pages are present.
fn check_pages(layout: &KvLayout, pages: &[&[u8]], visible: &[Range<usize>]) -> Result<(), Error> {
    let bytes = layout.layer_bytes();
    let mut absent = false;
    for page in pages {
        absent |= page.is_empty();
        if page.len() != bytes && !page.is_empty() {
            return Err(Error::Shape(format!("attention: a page of {} bytes; expected {bytes}", page.len())));
        }
    }
    if !absent {
        return Ok(());
    }
    // Pages already checked since the last range that began before them: the ranges of neighbouring queries overlap.
    let mut checked = 0..0;
    for range in visible.iter().filter(|range| !range.is_empty()) {
        let needed = range.start / PAGE_TOKENS..range.end.div_ceil(PAGE_TOKENS);
        let mut rest = needed.clone();
        if checked.contains(&rest.start) {
            rest.start = checked.end.min(rest.end);
        }
        if let Some(page) = rest.clone().find(|page| pages[*page].is_empty()) {
            return Err(Error::Shape(format!(
                "attention: page {page} is absent, but a query sees positions {range:?}; expected it to be given"
            )));
        }
        checked = if checked.contains(&needed.start) { checked.start..checked.end.max(needed.end) } else { needed };
    }
    Ok(())
}

/// Checks the configuration shared by all items.
pub(super) fn check_config(layout: &KvLayout, config: &AttentionConfig) -> Result<(), Error> {
    let heads = config.heads;
    let wrong = |what: String| Err(Error::Shape(format!("attention {what}")));
    if layout.kv_heads == 0 || layout.key_size == 0 || layout.value_size == 0 {
        return wrong(format!("with {layout:?}; expected sizes of at least 1"));
    }
    if layout.latent && layout.value_size > layout.key_size {
        return wrong(format!("with {layout:?}; expected values that are no longer than the keys that they begin"));
    }
    if layout.latent && layout.kv_type == KvType::I16 {
        return wrong(format!("with {layout:?}; expected floats or bytes where values are parts of keys"));
    }
    if heads == 0 || !heads.is_multiple_of(layout.kv_heads) {
        return wrong(format!(
            "of {heads} query heads with {} key and value heads; expected a multiple",
            layout.kv_heads
        ));
    }
    if config.sinks.is_some_and(|sinks| sinks.len() != heads) {
        return wrong(format!("of {heads} query heads with another number of sinks; expected one each"));
    }
    if config.slopes.is_some_and(|slopes| slopes.len() != heads || !slopes.iter().all(|slope| slope.is_finite())) {
        return wrong(format!("of {heads} query heads with other slopes; expected a finite number each"));
    }
    if let Some(cap) = config.soft_cap
        && !(cap.is_finite() && cap > 0.0)
    {
        return wrong(format!("with scores up to {cap}; expected a positive cap"));
    }
    Ok(())
}
