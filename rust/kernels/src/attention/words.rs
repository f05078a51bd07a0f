//! Keys and values as 16-bit integers with one scale a row: half as many instructions as floats, and as exact as half precision.
//!
//! A product of two rows must fit into 32 bits, so the longer a head is, the smaller are its integers: up to ±5461 with 72
//! elements. Values are up to ±4095, weights up to 8192, since 64 tokens are added up.

use super::page_size::PAGE_TOKENS;
use crate::math::{LANES, Lanes, MAGIC};
use crate::words::{limit, range};

/// Pairs of tokens in a page: token `i` and token `i + TOKEN_PAIRS`.
pub(super) const TOKEN_PAIRS: usize = PAGE_TOKENS / 2;
/// What the largest magnitude of a value becomes.
const VALUE_LIMIT: f32 = 4095.0;
/// What the largest weight of a page becomes: 64 · 8192 · 4095 is below 2^31.
pub(super) const WEIGHT_LIMIT: f32 = 8192.0;
/// Bytes of the scales of a page's rows.
pub(super) const SCALE_BYTES: usize = 4 * PAGE_TOKENS;

/// Pairs of elements of a key of `size`: element `i` and element `i + key_pairs`.
pub(super) fn key_pairs(size: usize) -> usize {
    size.div_ceil(2)
}

/// Calls `take` with the pairs of a key or query from each sixteenth on, lowest element first, and returns its scale.
#[inline(always)]
pub(super) fn pairs_of_key<L: Lanes>(set: L::Set, row: &[f32], take: &mut impl FnMut(usize, &[i32])) -> f32 {
    let pairs = key_pairs(row.len());
    let (scale, inverse) = range::<L>(set, row, limit(row.len()));
    let (inverse, magic) = (L::splat(set, inverse), L::splat(set, MAGIC));
    let (low, high) = row.split_at(pairs);
    for first in (0..pairs).step_by(LANES) {
        let count = LANES.min(pairs - first);
        let high = &high[first.min(high.len())..(first + count).min(high.len())];
        let low = L::load_part(set, &low[first..first + count]);
        let mut found = [0; LANES];
        if !scale.is_nan() {
            L::store_pairs(low.fma(inverse, magic), L::load_part(set, high).fma(inverse, magic), &mut found);
        }
        take(first, &found[..count]);
    }
    scale
}

/// Stores a key: scales `[token]`, then words `[pair][token][2]`.
#[inline(always)]
pub(super) fn write_key<L: Lanes>(set: L::Set, keys: &mut [u8], slot: usize, key: &[f32]) {
    let (scales, words) = keys.split_at_mut(SCALE_BYTES);
    let places = words.as_chunks_mut::<4>().0;
    let scale = pairs_of_key::<L>(set, key, &mut |first, pairs| {
        for (index, pair) in pairs.iter().enumerate() {
            places[(first + index) * PAGE_TOKENS + slot] = pair.to_le_bytes();
        }
    });
    scales[4 * slot..][..4].copy_from_slice(&scale.to_le_bytes());
}

/// Stores a value: scales `[token]`, then words `[pair of tokens][number][2]`, rows of whole vectors.
#[inline(always)]
pub(super) fn write_value<L: Lanes>(set: L::Set, values: &mut [u8], slot: usize, value: &[f32]) {
    let (scales, words) = values.split_at_mut(SCALE_BYTES);
    let (scale, inverse) = range::<L>(set, value, VALUE_LIMIT);
    scales[4 * slot..][..4].copy_from_slice(&scale.to_le_bytes());
    let width = value.len().next_multiple_of(LANES);
    let row = &mut words.as_chunks_mut::<4>().0[slot % TOKEN_PAIRS * width..][..width];
    for (part, to) in value.chunks(LANES).zip(row.chunks_exact_mut(LANES)) {
        let numbers = L::load_part(set, part).fma(L::splat(set, inverse), L::splat(set, MAGIC));
        let mut pairs = [0; LANES];
        if !scale.is_nan() {
            L::store_pairs(numbers, numbers, &mut pairs);
        }
        for (to, pair) in to.iter_mut().zip(pairs) {
            to[slot / TOKEN_PAIRS * 2..][..2].copy_from_slice(&(pair as i16).to_le_bytes());
        }
    }
}
