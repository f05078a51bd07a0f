//! Biases of relative positions in attention: products of queries with the keys of distances, and of keys with their
//! queries (P. He et al., "DeBERTa", arXiv:2006.03654; buckets: DeBERTa V3, arXiv:2111.09543).

use llamacpu_kernels::attention::{RelativeTerm, add_relative_bias};
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::InputBuffers;
use llamacpu_kernels::memory;
use llamacpu_kernels::rope::natural_logarithm;

use crate::config::Config;
use crate::error::{Error, zeroed};
use crate::feed_forward::project;
use crate::norms::normalize;
use crate::pass::{Pass, Segment};
use crate::weights::{DistanceTable, HeadAttention};

/// The embeddings of the distances that occur in a pass.
pub(crate) struct Distances {
    /// rows × width, normalized.
    rows: Vec<f32>,
    /// The row of every difference of positions, query minus key, from `1 - longest` to `longest - 1`.
    row_of: Vec<usize>,
    /// Tokens of the longest text.
    longest: usize,
}

impl Distances {
    /// Those of the texts of a pass.
    pub(crate) fn of(
        context: &Context,
        config: &Config,
        table: &DistanceTable,
        segments: &[Segment],
    ) -> Result<Self, Error> {
        let longest = segments.iter().map(|segment| segment.tokens.len()).max().unwrap_or(0);
        let mut row_of: Vec<usize> = memory::room((2 * longest).saturating_sub(1), "relative positions")?;
        row_of.extend((0..(2 * longest).saturating_sub(1)).map(|place| row(config, place as i64 + 1 - longest as i64)));
        let (first, last) = (row_of.first().copied().unwrap_or(0), row_of.last().copied().unwrap_or(0));
        for row in &mut row_of {
            *row -= first;
        }
        let width = config.embedding_length;
        let from = &table.rows[first * width..(last + 1) * width];
        let mut rows = zeroed(Some(from.len()), "relative positions")?;
        normalize(context, config, &table.norm, from, &mut rows)?;
        Ok(Self { rows, row_of, longest })
    }
}

/// The row of the table for a difference of positions. Half of the buckets have a distance each; those beyond share the
/// others by the logarithm of the distance.
fn row(config: &Config, difference: i64) -> usize {
    let span = config.relative_span() as i64;
    let half = (config.relative_buckets / 2) as i64;
    let distance = difference.abs();
    let bucket = if half == 0 || distance <= half {
        difference
    } else {
        let logarithm = |distance: f64| natural_logarithm(distance / half as f64);
        let share = logarithm(distance as f64) / logarithm((config.relative_positions - 1) as f64);
        ((share * (half - 1) as f64).ceil() as i64 + half) * difference.signum()
    };
    (bucket + span).clamp(0, 2 * span - 1) as usize
}

/// The biases of each text, heads × tokens × tokens; none where the model has no such biases.
pub(crate) fn biases(
    pass: &Pass,
    weights: &HeadAttention,
    segments: &[Segment],
    query: &[f32],
    key: &[f32],
    scratch: &mut InputBuffers,
) -> Result<Vec<Vec<f32>>, Error> {
    let Some(distances) = pass.distances.filter(|_| pass.kept > 0) else { return Ok(Vec::new()) };
    let (context, sizes) = (pass.context, pass.sizes);
    let (rows, width) = (distances.rows.len() / pass.config.embedding_length, sizes.query_width());
    let mut keys = zeroed(rows.checked_mul(width), "relative positions")?;
    let mut queries = zeroed(rows.checked_mul(width), "relative positions")?;
    let mut projections = [(&weights.key, &mut keys[..]), (&weights.query, &mut queries[..])];
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
        let scale = pass.config.score_scale();
        for (rows, of_keys, table) in [(&query[own.clone()], false, &keys), (&key[own], true, &queries)] {
            let term = RelativeTerm { rows, of_keys, table, buckets, scale };
            add_relative_bias(context, sizes.heads, sizes.key_size, &term, &mut bias)?;
        }
        biases.push(bias);
    }
    Ok(biases)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::config;

    #[test]
    fn near_distances_have_rows_of_their_own_and_far_ones_share() {
        let config = Config { relative_positions: 512, relative_buckets: 256, ..config() };
        let rows: Vec<_> = (-600..=600).map(|difference| row(&config, difference)).collect();
        assert!(rows.is_sorted());
        assert_eq!((0..=128).map(|near| row(&config, near)).collect::<Vec<_>>(), (256..=384).collect::<Vec<_>>());
        // From the paper's code: 127 * log(d / 128) / log(511 / 128), rounded up, behind the 128 near ones.
        for (distance, bucket) in [(129, 129), (200, 169), (300, 207), (511, 255), (600, 270)] {
            assert_eq!(row(&config, distance), (256 + bucket).min(511), "{distance}");
            assert_eq!(row(&config, -distance), 256_usize.saturating_sub(bucket), "{distance}");
        }
        let plain = Config { relative_positions: 8, relative_buckets: 0, ..config };
        assert_eq!([-9, -8, -1, 0, 7, 8, 99].map(|difference| row(&plain, difference)), [0, 0, 7, 8, 15, 15, 15]);
    }
}
