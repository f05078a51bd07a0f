//! Rows of floats as 16-bit integers with one scale: what attention and products of picture encoders multiply.

use crate::math::{LANES, Lanes};

/// 2^-100: rows of nothing larger count as zeros.
pub(crate) const SMALLEST: f32 = f32::from_bits(27 << 23);

/// What the largest magnitude of a row becomes, so that a product of two rows of `size` elements fits into 32 bits.
pub(crate) const fn limit(size: usize) -> f32 {
    let size = if size == 0 { 1 } else { size };
    let most = (i32::MAX as usize / size).isqrt();
    if most < i16::MAX as usize { most as f32 } else { i16::MAX as f32 }
}

/// The scale of a row whose largest magnitude becomes `limit`, and its reciprocal. A row with a NaN or an infinity has a scale
/// of NaN.
#[inline(always)]
pub(crate) fn range<L: Lanes>(set: L::Set, row: &[f32], limit: f32) -> (f32, f32) {
    let (mut largest, mut check) = (L::zero(set), L::zero(set));
    for part in row.chunks(LANES) {
        let part = L::load_part(set, part);
        largest = L::zero(set).sub(part).max(part).max(largest);
        // A value minus itself is 0, or NaN if it is not finite.
        check = check.add(part.sub(part));
    }
    let largest = largest.largest();
    if check.sum() != 0.0 {
        (f32::NAN, 0.0)
    } else if largest < SMALLEST {
        (0.0, 0.0)
    } else {
        (largest / limit, limit / largest)
    }
}
