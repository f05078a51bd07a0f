//! Quantization to the K and IQ4 formats without an importance matrix: parts are fitted one by one, their scales are rounded
//! to the few bits that the format has for them, and quants are rounded again with the rounded scales.

use half::f16;

use super::four_bit_tables::NON_LINEAR;
use super::search::{RangeSearch, extreme, fit_symmetric, fit_three_bits, inverse, nearest};

/// Rounded scales and minimums of a block: f16 d and dmin, then an integer of each for every part.
struct Ranges {
    d: f16,
    dmin: f16,
    scales: Vec<u8>,
    minimums: Vec<u8>,
}

/// Fits the scale and minimum of parts of `size` values and rounds them to integers up to `most`.
fn fit_ranges(values: &[f32], size: usize, search: &RangeSearch, most: i32) -> Ranges {
    let fits: Vec<(f32, f32)> = values
        .chunks_exact(size)
        .map(|part| {
            // Q2_K weights errors by magnitude; the other formats add the root mean square, so that small values count as well.
            let base =
                if search.absolute { 0.0 } else { (part.iter().map(|x| x * x).sum::<f32>() / size as f32).sqrt() };
            let weights: Vec<f32> = part.iter().map(|x| base + x.abs()).collect();
            search.fit(part, &weights)
        })
        .collect();
    let round = |pick: fn(&(f32, f32)) -> f32| {
        let largest = fits.iter().map(pick).fold(0.0, f32::max);
        let inverse = if largest > 0.0 { most as f32 / largest } else { 0.0 };
        let rounded = fits.iter().map(|fit| nearest(inverse * pick(fit), 0, most) as u8).collect();
        (f16::from_f32(largest / most as f32), rounded)
    };
    let (d, scales) = round(|fit| fit.0);
    let (dmin, minimums) = round(|fit| fit.1);
    Ranges { d, dmin, scales, minimums }
}

impl Ranges {
    /// Quants of all values with the rounded scales.
    fn quants(&self, values: &[f32], size: usize, largest: i32) -> Vec<u8> {
        let mut quants = Vec::with_capacity(values.len());
        for (part, values) in values.chunks_exact(size).enumerate() {
            let scale = self.d.to_f32() * f32::from(self.scales[part]);
            let minimum = self.dmin.to_f32() * f32::from(self.minimums[part]);
            let inverse = inverse(scale);
            quants.extend(values.iter().map(|x| nearest((x + minimum) * inverse, 0, largest) as u8));
        }
        quants
    }

    /// Writes f16 d, f16 dmin, 12 bytes of six-bit scales and minimums.
    fn write_six_bits(&self, out: &mut [u8]) {
        let (scales, minimums) = (&self.scales, &self.minimums);
        out[..2].copy_from_slice(&self.d.to_le_bytes());
        out[2..4].copy_from_slice(&self.dmin.to_le_bytes());
        for j in 0..4 {
            out[4 + j] = scales[j] | scales[j + 4] >> 4 << 6;
            out[8 + j] = minimums[j] | minimums[j + 4] >> 4 << 6;
            out[12 + j] = scales[j + 4] & 15 | minimums[j + 4] << 4;
        }
    }
}

/// Quantizes to Q2_K.
pub(super) fn quantize_q2_k(values: &[f32], out: &mut [u8]) {
    let search = RangeSearch { largest: 3, start: -0.5, steps: 15, absolute: true };
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<84>().0) {
        let ranges = fit_ranges(values, 16, &search, 15);
        let quants = ranges.quants(values, 16, 3);
        for (out, (scale, minimum)) in out.iter_mut().zip(ranges.scales.iter().zip(&ranges.minimums)) {
            *out = scale | minimum << 4;
        }
        write_pairs(&quants, &mut out[16..80]);
        out[80..82].copy_from_slice(&ranges.d.to_le_bytes());
        out[82..].copy_from_slice(&ranges.dmin.to_le_bytes());
    }
}

/// Writes the two low bits of 256 quants: 32 bytes hold four runs of 32.
fn write_pairs(quants: &[u8], out: &mut [u8]) {
    for (l, out) in out.iter_mut().enumerate() {
        let first = l / 32 * 128 + l % 32;
        *out = (0..4).fold(0, |bits, run| bits | (quants[first + 32 * run] & 3) << (2 * run));
    }
}

/// Quantizes to Q4_K.
pub(super) fn quantize_q4_k(values: &[f32], out: &mut [u8]) {
    let search = RangeSearch { largest: 15, start: -1.0, steps: 20, absolute: false };
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<144>().0) {
        let ranges = fit_ranges(values, 32, &search, 63);
        let quants = ranges.quants(values, 32, 15);
        ranges.write_six_bits(out);
        write_nibbles(&quants, &mut out[16..]);
    }
}

/// Writes the four low bits of 256 quants: 32 bytes hold two runs of 32.
fn write_nibbles(quants: &[u8], out: &mut [u8]) {
    for (l, out) in out.iter_mut().enumerate() {
        let first = l / 32 * 64 + l % 32;
        *out = quants[first] & 15 | (quants[first + 32] & 15) << 4;
    }
}

/// Quantizes to Q5_K.
pub(super) fn quantize_q5_k(values: &[f32], out: &mut [u8]) {
    let search = RangeSearch { largest: 31, start: -0.5, steps: 15, absolute: false };
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<176>().0) {
        let ranges = fit_ranges(values, 32, &search, 63);
        let quants = ranges.quants(values, 32, 31);
        ranges.write_six_bits(out);
        for (l, out) in out[16..48].iter_mut().enumerate() {
            *out = (0..8).fold(0, |bits, run| bits | (quants[32 * run + l] >> 4) << run);
        }
        write_nibbles(&quants, &mut out[48..]);
    }
}

/// Rounds the signed scales of parts so that the one of largest magnitude becomes `-most`.
fn round_scales(scales: &[f32], most: i32) -> (f16, Vec<i32>) {
    let largest = extreme(scales);
    let inverse = if largest.abs() < 1e-15 { 0.0 } else { -most as f32 / largest };
    let d = if inverse == 0.0 { 0.0 } else { 1.0 / inverse };
    (f16::from_f32(d), scales.iter().map(|scale| nearest(inverse * scale, -most, most - 1)).collect())
}

/// Quantizes to Q3_K.
pub(super) fn quantize_q3_k(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<110>().0) {
        let fits: Vec<f32> = values.chunks_exact(16).map(fit_three_bits).collect();
        let (d, scales) = round_scales(&fits, 32);
        let mut quants = [0; 256];
        for ((values, quants), scale) in values.chunks_exact(16).zip(quants.chunks_exact_mut(16)).zip(&scales) {
            let inverse = inverse(d.to_f32() * *scale as f32);
            for (quant, x) in quants.iter_mut().zip(values) {
                *quant = (nearest(x * inverse, -4, 3) + 4) as u8;
            }
        }
        for (l, out) in out[..32].iter_mut().enumerate() {
            *out = (0..8).fold(0, |bits, run| bits | (quants[32 * run + l] >> 2) << run);
        }
        write_pairs(&quants, &mut out[32..96]);
        let scales: Vec<u8> = scales.iter().map(|scale| (scale + 32) as u8).collect();
        for j in 0..8 {
            out[96 + j] = scales[j] & 15 | (scales[j + 8] & 15) << 4;
        }
        for j in 0..4 {
            out[104 + j] = (0..4).fold(0, |bits, k| bits | (scales[j + 4 * k] >> 4) << (2 * k));
        }
        out[108..].copy_from_slice(&d.to_le_bytes());
    }
}

/// Quantizes to Q6_K.
pub(super) fn quantize_q6_k(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<210>().0) {
        let trials = || (-9..=9).map(|step| -(32.0 + 0.1 * step as f32));
        let fit = |part: &[f32]| fit_symmetric(part, trials(), |x| nearest(x, -32, 31) as f32);
        let fits: Vec<f32> = values.chunks_exact(16).map(fit).collect();
        let (d, scales) = round_scales(&fits, 128);
        let mut quants = [0; 256];
        for ((values, quants), scale) in values.chunks_exact(16).zip(quants.chunks_exact_mut(16)).zip(&scales) {
            let inverse = inverse(d.to_f32() * *scale as f32);
            for (quant, x) in quants.iter_mut().zip(values) {
                *quant = (nearest(x * inverse, -32, 31) + 32) as u8;
            }
        }
        for half in 0..2 {
            let quants = &quants[128 * half..][..128];
            for l in 0..32 {
                out[64 * half + l] = quants[l] & 15 | (quants[l + 64] & 15) << 4;
                out[64 * half + l + 32] = quants[l + 32] & 15 | (quants[l + 96] & 15) << 4;
                out[128 + 32 * half + l] = (0..4).fold(0, |bits, k| bits | (quants[32 * k + l] >> 4) << (2 * k));
            }
        }
        for (out, scale) in out[192..208].iter_mut().zip(&scales) {
            *out = *scale as u8;
        }
        out[208..].copy_from_slice(&d.to_le_bytes());
    }
}

/// Index of the nearest entry of the non-linear table.
fn nearest_entry(value: f32) -> usize {
    let distance = |entry: usize| (f32::from(NON_LINEAR[entry]) - 128.0 - value).abs();
    (1..16).fold(0, |best, entry| if distance(entry) < distance(best) { entry } else { best })
}

/// Fits a scale for 32 values with the non-linear table.
fn fit_non_linear(values: &[f32]) -> f32 {
    let trials = (-7..=7).map(|step| step as f32 - 127.0);
    fit_symmetric(values, trials, |x| f32::from(NON_LINEAR[nearest_entry(x)]) - 128.0)
}

/// Writes the nibbles of 32 values with the rounded scale.
fn write_non_linear(values: &[f32], scale: f32, out: &mut [u8]) {
    let inverse = inverse(scale);
    for (j, out) in out.iter_mut().enumerate() {
        *out = (nearest_entry(values[j] * inverse) | nearest_entry(values[j + 16] * inverse) << 4) as u8;
    }
}

/// Quantizes to IQ4_NL.
pub(super) fn quantize_iq4_nl(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let d = f16::from_f32(fit_non_linear(values));
        out[..2].copy_from_slice(&d.to_le_bytes());
        write_non_linear(values, d.to_f32(), &mut out[2..]);
    }
}

/// Quantizes to IQ4_XS.
pub(super) fn quantize_iq4_xs(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<136>().0) {
        let fits: Vec<f32> = values.chunks_exact(32).map(fit_non_linear).collect();
        let (d, scales) = round_scales(&fits, 32);
        out[..2].copy_from_slice(&d.to_le_bytes());
        out[2..8].fill(0);
        for (part, scale) in scales.iter().enumerate() {
            let bits = (scale + 32) as u8;
            out[4 + part / 2] |= (bits & 15) << (4 * (part % 2));
            out[2 + part / 4] |= bits >> 4 << (2 * (part % 4));
            let values = &values[32 * part..][..32];
            write_non_linear(values, d.to_f32() * *scale as f32, &mut out[8 + 16 * part..][..16]);
        }
    }
}
