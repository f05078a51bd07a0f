//! IEEE 754 half-precision conversions without branches, bit for bit the same as the hardware instructions.

/// Converts half precision to `f32`, exactly.
#[inline(always)]
pub fn half_to_float(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff) << 13;
    // The exponent bias differs by 127 - 15; the product is exact and makes subnormal halves normal.
    let finite = (f32::from_bits(magnitude) * f32::from_bits((254 - 15) << 23)).to_bits();
    let quiet = if half.trailing_zeros() >= 10 { 0 } else { 0x0040_0000 };
    let bits = if half & 0x7c00 == 0x7c00 { magnitude | 0x7f80_0000 | quiet } else { finite };
    f32::from_bits(bits | sign)
}

/// Converts `f32` to half precision, rounded to nearest, ties to even; beyond 65504 plus half a step, to infinity. A NaN
/// keeps the upper bits of its payload and becomes quiet.
#[inline(always)]
pub fn float_to_half(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = (bits >> 16) & 0x8000;
    let magnitude = bits & 0x7fff_ffff;
    // Normal halves: re-bias the exponent and round off the low 13 bits.
    let normal = magnitude.wrapping_sub(112 << 23).wrapping_add(0x0fff + ((magnitude >> 13) & 1)) >> 13;
    // Below 2^-14: adding 0.5 aligns the last bit of a subnormal half with the last bit of the sum, which rounds.
    let subnormal = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0.5f32.to_bits());
    let finite = if magnitude < 113 << 23 { subnormal } else { normal };
    let infinite = if magnitude > 0x7f80_0000 { 0x7e00 | ((magnitude >> 13) & 0x3ff) } else { 0x7c00 };
    (sign | if magnitude >= 0x477f_f000 { infinite } else { finite }) as u16
}
