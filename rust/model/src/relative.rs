//! Relative-position biases in attention: products of queries with the keys of distances, and of keys with the queries
//! of distances (P. He et al., "DeBERTa", arXiv:2006.03654).

use llamacpu_kernels::attention::{RelativeTerm, add_relative_bias};
use llamacpu_kernels::memory;

use crate::error::{Error, zeroed};
use crate::feed_forward::project;
use crate::pass::{Pass, Segment};
use crate::scratch::Scratch;
use crate::weights::HeadAttention;

/// The biases of each text, heads × tokens × tokens; empty if the model has none.
pub(crate) fn biases(
    pass: &Pass,
    weights: &HeadAttention,
    segments: &[Segment],
    query: &[f32],
    key: &[f32],
    scratch: &mut Scratch,
) -> Result<Vec<Vec<f32>>, Error> {
    let Some(distances) = pass.distances.filter(|_| pass.kept > 0) else { return Ok(Vec::new()) };
    let (context, sizes) = (pass.context, pass.sizes);
    let (rows, width) = (distances.rows.len() / pass.config.embedding_length, sizes.query_width());
    let mut keys = zeroed(rows.checked_mul(width), "relative positions")?;
    let mut queries = zeroed(rows.checked_mul(width), "relative positions")?;
    let [key_map, _] = weights.own()?;
    let mut projections = [(key_map, &mut keys[..]), (&weights.query, &mut queries[..])];
    project(context, &distances.rows, rows, scratch, &mut projections)?;
    let mut biases = memory::room(segments.len(), "relative positions")?;
    let mut start = 0;
    for segment in segments {
        let tokens = segment.tokens.len();
        let own = start * width..(start + tokens) * width;
        start += tokens;
        let len = tokens.checked_mul(tokens).and_then(|square| square.checked_mul(sizes.heads));
        let mut bias = zeroed(len, "relative positions")?;
        let buckets = &distances.row_of[distances.longest - tokens..][..2 * tokens - 1];
        let scale = pass.config.score_scale(&sizes);
        for (rows, of_keys, table) in [(&query[own.clone()], false, &keys), (&key[own], true, &queries)] {
            let term = RelativeTerm { rows, of_keys, table, buckets, scale };
            add_relative_bias(context, sizes.heads, sizes.key_size, &term, &mut bias)?;
        }
        biases.push(bias);
    }
    Ok(biases)
}
