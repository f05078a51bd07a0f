//! NVFP4: E2M1 floats with a scale for 16 of them, an unsigned E4M3 float.
//!
//! Files usually store a factor of the whole matrix beside it (`Matrix::scaled`), since these scales end at 448 and 2^-9.

use super::blocks::Blocks;
use super::four_bit_tables::E2M1;
use super::layout::{Bits, Packing, Scales, Unpacked};

/// Four scales, then 8 bytes for 16 weights each: byte `j` holds weight `j` in its low bits and weight `j + 8` in its high bits.
/// `table[q] · scale / 2`.
pub(crate) struct Nvfp4;

impl Blocks for Nvfp4 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 36;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: Some(&E2M1), zero: 12, scales: Scales::Half16, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        for part in 0..4 {
            out.halves[part] = half_of_e4m3(block[part]);
            let quants = &mut out.quants[16 * part..][..16];
            for (j, byte) in block[4 + 8 * part..][..8].iter().enumerate() {
                quants[j] = byte & 15;
                quants[j + 8] = byte >> 4;
            }
        }
    }
}

/// Half of an unsigned E4M3 float, as f16, which holds every one of them; the sign bit is ignored. 127 is no number, and stands
/// for 0.
#[inline(always)]
pub const fn half_of_e4m3(bits: u8) -> u16 {
    let (exponent, mantissa) = (bits >> 3 & 15, bits & 7);
    if bits == 127 {
        return 0;
    }
    match (exponent, mantissa) {
        (0, 0) => 0,
        // Numbers below 2^-6 are multiples of 2^-9: their halves are numbers of f16 with another exponent for each.
        (0, 1) => 5 << 10,
        (0, 2) => 6 << 10,
        (0, 3) => 6 << 10 | 1 << 9,
        (0, _) => 7 << 10 | (mantissa as u16 - 4) << 8,
        // The exponent is that of f16 minus 8, and one less for the half.
        _ => (exponent as u16 + 7) << 10 | (mantissa as u16) << 7,
    }
}

/// The steps of a scale for 16 weights.
const SCALES: [f32; 127] = {
    let mut scales = [0.0; 127];
    let mut bits = 0;
    while bits < 127 {
        scales[bits] = half::f16::from_bits(half_of_e4m3(bits as u8)).to_f32_const();
        bits += 1;
    }
    scales
};

/// Magnitudes of the table.
const VALUES: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0];

/// Quantizes rows: 16 weights get the scale with the smallest squared error, weighted by the importance of the columns.
#[inline(always)]
pub(crate) fn quantize(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for (index, (values, out)) in values.as_chunks::<64>().0.iter().zip(out.as_chunks_mut::<36>().0).enumerate() {
        for (part, values) in values.as_chunks::<16>().0.iter().enumerate() {
            let weights = importance.map(|all| {
                let first = (64 * index + 16 * part) % all.len();
                std::array::from_fn(|at| all[first + at])
            });
            let scale = best_scale(values, weights);
            out[part] = scale;
            let quants = values.map(|value| nearest(value, inverse(scale)));
            for j in 0..8 {
                out[4 + 8 * part + j] = quants[j] | quants[j + 8] << 4;
            }
        }
    }
}

/// The reciprocal of a scale; 0 for that of zeros.
#[inline(always)]
fn inverse(scale: u8) -> f32 {
    if scale == 0 { 0.0 } else { 1.0 / SCALES[usize::from(scale)] }
}

/// The scale of 16 values.
#[inline(always)]
fn best_scale(values: &[f32; 16], weights: Option<[f32; 16]>) -> u8 {
    let largest = values.iter().fold(0.0, |found: f32, value| found.max(value.abs()));
    if largest == 0.0 {
        return 0;
    }
    // What a scale can represent, half of it can, unless that is too small or not a scale. Cutting off more than a quarter of
    // the largest magnitude pays only if that matters little.
    let least = largest / if weights.is_some() { 96.0 } else { 16.0 };
    let most = if largest < 6.0 * SCALES[16] { largest } else { largest / 5.9 };
    let weights = weights.unwrap_or([1.0; 16]);
    let mut best = (f32::INFINITY, 1);
    for (bits, scale) in SCALES.iter().enumerate().skip(1) {
        if bits > 1 && (*scale < least || *scale > most) {
            continue;
        }
        let inverse = 1.0 / *scale;
        let mut errors = [0.0; 16];
        for ((error, value), weight) in errors.iter_mut().zip(values).zip(&weights) {
            let difference = value.abs() - *scale * rounded(value.abs() * inverse);
            *error = difference * difference * weight;
        }
        // In a fixed order: neighbours, then pairs of them.
        let mut width = 8;
        while width > 0 {
            for at in 0..width {
                errors[at] += errors[at + width];
            }
            width /= 2;
        }
        if errors[0] < best.0 {
            best = (errors[0], bits);
        }
    }
    best.1 as u8
}

/// The nearest value of the table to a magnitude; the lower one of two.
#[inline(always)]
fn rounded(magnitude: f32) -> f32 {
    let mut value = 0.0;
    for pair in VALUES.windows(2) {
        value = if magnitude > 0.5 * (pair[0] + pair[1]) { pair[1] } else { value };
    }
    value
}

/// The quant of a value.
#[inline(always)]
fn nearest(value: f32, inverse: f32) -> u8 {
    let magnitude = value.abs() * inverse;
    let index = VALUES.windows(2).filter(|pair| magnitude > 0.5 * (pair[0] + pair[1])).count() as u8;
    if value < 0.0 && index > 0 { index | 8 } else { index }
}
