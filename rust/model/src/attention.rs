//! Grouped-query attention (A. Vaswani et al., arXiv:1706.03762; J. Ainslie et al., arXiv:2305.13245): computes the
//! queries, keys and values of all rows, writes keys and values into the pages, and lets each row attend to what it can
//! see.

use std::ops::Range;

use llamacpu_kernels::activation::{Activation as Function, gated};
use llamacpu_kernels::attention::{AttentionConfig, AttentionItem, Visible, attention};

use crate::config::{AttentionGate, Config, LayerConfig, QueryKeyNorm, Sight};
use crate::error::{Error, sized};
use crate::feed_forward::project;
use crate::kv::Kept;
use crate::norms::{normalize_heads, normalize_values};
use crate::pass::{Pass, Segment, keep_last};
use crate::picture_inputs::seen_together;
use crate::relative;
use crate::rows::{for_rows, multiply};
use crate::scratch::Scratch;
use crate::selection::Selection;
use crate::weights::HeadAttention;

/// Attention buffers; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct AttentionBuffers {
    /// heads × key size
    pub(crate) query: Vec<f32>,
    /// key and value heads × key size
    pub(crate) key: Vec<f32>,
    /// key and value heads × value size
    pub(crate) value: Vec<f32>,
    /// heads × value size
    pub(crate) attended: Vec<f32>,
    /// heads × value size
    pub(crate) gates: Vec<f32>,
    /// heads × (key size + value size): queries and gates, as one matrix computes them
    pub(crate) joined: Vec<f32>,
}

/// What changes the scores of attention besides queries and keys.
#[derive(Default)]
pub(crate) struct Adjustments<'a> {
    /// A score per head that has no value.
    sinks: Option<&'a [f32]>,
    /// A slope per head of linear biases.
    slopes: Option<&'a [f32]>,
    /// For each text, heads × tokens × tokens; empty if there are none.
    biases: &'a [Vec<f32>],
    /// The keys that each row sees; absent if it sees all of them.
    selection: Option<&'a Selection>,
}

impl<'a> Adjustments<'a> {
    /// Nothing but which keys are seen.
    pub(crate) fn of(selection: Option<&'a Selection>) -> Self {
        Self { selection, ..Self::default() }
    }
}

/// Sets `output` (kept rows × width) to the attention output for `input` (rows × width), and writes keys and values.
pub(crate) fn run(
    pass: &Pass,
    weights: &HeadAttention,
    input: &[f32],
    segments: &mut [Segment],
    (buffers, scratch): (&mut AttentionBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let Pass { context, config, sizes, .. } = pass;
    let rows = pass.places.len();
    let (query_row, key_row, value_row) = (sizes.query_width(), sizes.key_width(), sizes.value_width());
    let AttentionBuffers { query, key, value, attended, gates, joined } = buffers;
    // Rows of which nothing is wanted but their keys and values ask nothing.
    let asking = if pass.kept > 0 || config.relative_positions > 0 { rows } else { 0 };
    let query = sized(query, asking.checked_mul(query_row), "queries")?;
    // Layers that read the keys and values of another one have none to compute.
    let own = if sizes.lent.is_none() && sizes.kv_source == pass.layer { rows } else { 0 };
    let key = sized(key, own.checked_mul(key_row), "keys")?;
    let value = sized(value, own.checked_mul(value_row), "values")?;
    let attended = sized(attended, pass.kept.checked_mul(sizes.attended_width()), "attention")?;

    let gated_query = config.attention_gate == AttentionGate::Query;
    let joined_row = if gated_query { weights.query.rows() } else { 0 };
    let joined = sized(joined, asking.checked_mul(joined_row), "queries")?;
    let first = if gated_query { &mut *joined } else { &mut *query };
    let mut projections = Vec::new();
    if asking > 0 {
        projections.push((&weights.query, &mut *first));
    }
    projections.extend(weights.key.as_ref().map(|map| (map, &mut *key)));
    projections.extend(weights.value.as_ref().map(|map| (map, &mut *value)));
    project(context, input, rows, scratch, &mut projections)?;
    if gated_query {
        let gates = sized(gates, asking.checked_mul(sizes.attended_width()), "attention")?;
        take_columns(joined, (sizes.key_size + sizes.value_size, 0), (query, sizes.key_size));
        take_columns(joined, (sizes.key_size + sizes.value_size, sizes.key_size), (gates, sizes.value_size));
    }
    if sizes.keys_as_values {
        value.copy_from_slice(key);
    }
    if config.query_key_value_limit > 0.0 {
        for (values, row_size) in [(&mut *query, query_row), (&mut *key, key_row), (&mut *value, value_row)] {
            clamp(pass, values, row_size)?;
        }
    }
    let behind = matches!(sizes.query_key_norm, QueryKeyNorm::Unweighted | QueryKeyNorm::RotatedHead);
    for (heads, row_size, norm) in
        [(&mut *query, query_row, &weights.norms.query), (&mut *key, key_row, &weights.norms.key)]
    {
        if heads.is_empty() {
            continue;
        }
        if !behind {
            normalize_heads(context, config, sizes, norm.as_ref(), heads)?;
        }
        pass.rotations.turn(context, pass.angles, sizes.rotation, (heads, row_size), (sizes.key_size, 0))?;
        if behind {
            normalize_heads(context, config, sizes, norm.as_ref(), heads)?;
        }
    }
    if config.value_norm {
        normalize_values(pass.context, config, sizes, value)?;
    }
    warm(pass, query, query_row)?;
    let biases = relative::biases(pass, weights, segments, query, key, scratch)?;
    if own > 0 {
        write_pages(pass, Kept::Layer(pass.layer), segments, (key, key_row), (value, value_row))?;
    }
    if pass.kept == 0 {
        return Ok(());
    }
    keep_rows(pass, segments, query, query_row);
    let more = Adjustments {
        sinks: weights.sinks.as_deref(),
        slopes: weights.slopes.as_deref(),
        biases: &biases,
        selection: None,
    };
    attend(pass, segments, more, &query[..pass.kept * query_row], attended)?;
    if let Some(gate) = &weights.gate {
        let gates = sized(gates, rows.checked_mul(gate.rows()), "attention")?;
        project(context, input, rows, scratch, &mut [(gate, gates)])?;
    }
    if gated_query || weights.gate.is_some() {
        open(pass, segments, gates, attended)?;
    }
    project(context, attended, pass.kept, scratch, &mut [(&weights.output, output)])
}

/// Multiplies the output of attention by the logistic function of the gates.
fn open(pass: &Pass, segments: &[Segment], gates: &mut [f32], attended: &mut [f32]) -> Result<(), Error> {
    let row_size = pass.sizes.attended_width();
    keep_rows(pass, segments, &mut gates[..pass.places.len() * row_size], row_size);
    let gates = &mut gates[..attended.len()];
    gated(pass.context, Function::Sigmoid, gates, attended)?;
    attended.copy_from_slice(gates);
    Ok(())
}

/// Copies the same part of every head, which begins at column `start` of `size` columns, to consecutive parts.
fn take_columns(source: &[f32], (size, start): (usize, usize), (target, taken): (&mut [f32], usize)) {
    for (source, target) in source.chunks_exact(size).zip(target.chunks_exact_mut(taken)) {
        target.copy_from_slice(&source[start..start + taken]);
    }
}

/// Limits queries, keys or values.
fn clamp(pass: &Pass, values: &mut [f32], row_size: usize) -> Result<(), Error> {
    let limit = pass.config.query_key_value_limit;
    for_rows(pass.context, values, row_size, &|_, row| {
        for value in row {
            *value = value.clamp(-limit, limit);
        }
        Ok(())
    })
}

/// Scales the queries of distant positions, in layers that do so (Llama 4; K. Nakanishi, arXiv:2501.19399).
pub(crate) fn warm(pass: &Pass, query: &mut [f32], row_size: usize) -> Result<(), Error> {
    let Pass { config, sizes, places, .. } = pass;
    if sizes.temperature == 0.0 {
        return Ok(());
    }
    for_rows(pass.context, query, row_size, &|row, query| {
        multiply(query, temperature_factor(config, sizes, places[row].position));
        Ok(())
    })
}

/// The factor of the queries at a position.
pub(crate) fn temperature_factor(config: &Config, sizes: &LayerConfig, position: usize) -> f32 {
    let steps = (position + config.temperature_offset) / config.temperature_length;
    (1.0 + sizes.temperature * llamacpu_kernels::rope::natural_logarithm(1.0 + steps as f64)) as f32
}

/// Stores the keys and values of every row at its position.
pub(crate) fn write_pages(
    pass: &Pass,
    kept: Kept,
    segments: &mut [Segment],
    (key, key_row): (&[f32], usize),
    (value, value_row): (&[f32], usize),
) -> Result<(), Error> {
    let mut row = 0;
    for segment in segments {
        let end = row + segment.tokens.len();
        let keys = &key[row * key_row..end * key_row];
        let values = &value[row * value_row..end * value_row];
        segment.pages.write(pass.context, kept, segment.position, keys, values)?;
        row = end;
    }
    Ok(())
}

/// In the last layer, moves the queries of the rows that continue to the front.
pub(crate) fn keep_rows(pass: &Pass, segments: &[Segment], query: &mut [f32], row_size: usize) {
    if pass.kept < pass.places.len() {
        keep_last(segments, query, row_size, |segment| (segment.tokens.len(), segment.kept));
    }
}

/// Attention over the visible positions, for every row that continues.
pub(crate) fn attend(
    pass: &Pass,
    segments: &[Segment],
    Adjustments { sinks, slopes, biases, selection }: Adjustments,
    query: &[f32],
    attended: &mut [f32],
) -> Result<(), Error> {
    let Pass { config, layer, sizes, .. } = *pass;
    let Some(first) = segments.first() else { return Ok(()) };
    let kept = Kept::Layer(sizes.lent.unwrap_or(layer));
    let layout = first.pages.layout().layout(kept)?;
    let rows = |segment: &Segment| if pass.last { segment.kept } else { segment.tokens.len() };
    let added = |segment: &Segment| if sizes.lent.is_some() { 0 } else { segment.tokens.len() };
    let end = |segment: &Segment| segment.position + added(segment);
    let pages = segments.iter().map(|segment| segment.pages.layer_slices(kept, end(segment)));
    let pages = pages.collect::<Result<Vec<_>, Error>>()?;
    let ranges: Vec<_> = segments.iter().map(|segment| seen(config, &sizes, segment, rows(segment))).collect();
    let visible = |ranges| match sizes.sight {
        Sight::Everything if !config.causal => Visible::All,
        _ if !config.causal || !<[_]>::is_empty(ranges) => Visible::Ranges(ranges),
        Sight::Everything => Visible::Causal,
        Sight::Window(tokens) => Visible::Window(tokens),
        Sight::Chunk(tokens) => Visible::Chunk(tokens),
    };
    let (mut queries, mut outputs, mut done) = (query, attended, 0);
    let mut items = Vec::with_capacity(segments.len());
    for (index, ((segment, pages), ranges)) in segments.iter().zip(&pages).zip(&ranges).enumerate() {
        let count = rows(segment);
        let (own_queries, other_queries) = queries.split_at(count * layout.key_size * sizes.heads);
        let (own_output, other_outputs) = outputs.split_at_mut(count * layout.value_size * sizes.heads);
        (queries, outputs) = (other_queries, other_outputs);
        if count > 0 {
            items.push(AttentionItem {
                queries: own_queries,
                first_position: end(segment) - count,
                pages,
                output: own_output,
                visible: selection
                    .map_or_else(|| visible(ranges), |keys| Visible::Selected(keys.of(done..done + count))),
                bias: biases.get(index).map(|bias| &bias[..]),
            });
        }
        done += count;
    }
    let soft_cap = (config.attention_soft_cap > 0.0).then_some(config.attention_soft_cap);
    let shared = AttentionConfig { heads: sizes.heads, scale: config.score_scale(&sizes), soft_cap, sinks, slopes };
    attention(pass.context, layout, &shared, &mut items)?;
    Ok(())
}

/// What the last `rows` tokens of a segment see, where that is not what the layer says; empty if it is.
fn seen(config: &Config, sizes: &LayerConfig, segment: &Segment, rows: usize) -> Vec<Range<usize>> {
    if sizes.lent.is_some() {
        return vec![sizes.sight.behind(segment.position); rows];
    }
    let end = segment.position + segment.tokens.len();
    if segment.together || sizes.row_window > 0 {
        let first = |row: usize| if sizes.row_window > 0 { (row + 1).saturating_sub(sizes.row_window) } else { 0 };
        let last = |row: usize| if segment.together { end } else { row + 1 };
        return (end - rows..end).map(|row| first(row)..last(row)).collect();
    }
    if config.causal {
        return seen_together(sizes, segment, rows);
    }
    both_sides(sizes, end, rows)
}

/// What the last `rows` of a text's `tokens` tokens see when they look ahead within a window: half of it on each side.
fn both_sides(sizes: &LayerConfig, tokens: usize, rows: usize) -> Vec<Range<usize>> {
    let Sight::Window(size) = sizes.sight else { return Vec::new() };
    let range = |position: usize| position.saturating_sub(size / 2)..(position + size / 2 + 1).min(tokens);
    (tokens - rows..tokens).map(range).collect()
}
