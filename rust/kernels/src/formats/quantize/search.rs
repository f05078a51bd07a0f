//! Helpers of rounding: extremes, reciprocals and the nearest integer.

/// Rounds to nearest, ties to even, within limits; a NaN becomes zero (or the nearer limit).
#[inline]
pub(crate) fn nearest(value: f32, low: i32, high: i32) -> i32 {
    (value.round_ties_even() as i32).clamp(low, high)
}

/// The value of largest magnitude, with its sign; the first one of several.
#[inline(always)]
pub(crate) fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |found: f32, value| if value.abs() > found.abs() { *value } else { found })
}

/// `1 / d`; zero if that is NaN or infinite, as for a `d` of zero or a subnormal so small that f16 stores it as zero anyway.
#[inline(always)]
pub(crate) fn inverse(d: f32) -> f32 {
    let inverse = 1.0 / d;
    if inverse.is_finite() { inverse } else { 0.0 }
}
