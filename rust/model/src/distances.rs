//! Distances between the tokens of a text, as used by attention with relative positions (P. He et al., "DeBERTa",
//! arXiv:2006.03654; buckets: DeBERTa V3, arXiv:2111.09543).

use llamacpu_kernels::context::Context;
use llamacpu_kernels::memory;
use llamacpu_kernels::rope::natural_logarithm;

use crate::config::Config;
use crate::error::{Error, zeroed};
use crate::norms::normalize;
use crate::weights::DistanceTable;

/// The embeddings of the distances that occur in a pass.
pub(crate) struct Distances {
    /// rows × width, normalized.
    pub(crate) rows: Vec<f32>,
    /// The row of every difference of positions, query minus key, from `1 - longest` to `longest - 1`.
    pub(crate) row_of: Vec<usize>,
    /// Number of tokens in the longest text.
    pub(crate) longest: usize,
}

impl Distances {
    /// The distances that occur in texts of at most `longest` tokens.
    pub(crate) fn of(context: &Context, config: &Config, table: &DistanceTable, longest: usize) -> Result<Self, Error> {
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

/// The table row for a difference of positions. Half of the buckets hold one distance each; larger distances share the
/// rest, spaced logarithmically.
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
