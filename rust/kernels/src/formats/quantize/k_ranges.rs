//! Quantization to the K formats with scales and minimums, Q2_K, Q4_K and Q5_K: parts are fitted one by one, their scales are
//! rounded to the few bits that the format has for them, and quants are rounded again with the rounded scales.

use half::f16;

use super::bits::{write_bits, write_nibbles, write_pairs};
use super::positive::{FitPositive, Rounded};
use super::range::{FitRanges, RangeSearch, Ranges};
use super::round::{Quants, Round};
use super::rows::Rows;
use super::search::nearest;
use super::weights::{Blend, BlendRows, Weights};
use crate::cpu::Isa;
use crate::math::dispatch;

/// The search that an importance matrix allows: finer and wider, since its weights say more.
const fn thorough(largest: f32) -> RangeSearch {
    RangeSearch { largest, start: -0.9, step: 0.05, steps: 36, absolute: false }
}

/// Rounded scales and minimums of blocks: f16 d and dmin, then an integer of each for every part, and the quants.
#[derive(Clone)]
struct Blocks {
    d: Vec<f16>,
    dmin: Vec<f16>,
    scales: Vec<u8>,
    minimums: Vec<u8>,
    quants: Vec<u8>,
}

/// How a format with scales and minimums is fitted.
struct RangeFormat {
    /// Without an importance matrix.
    search: RangeSearch,
    /// Weights of errors without an importance matrix.
    weights: Weights<'static>,
    /// Multiplies the mean square of a block, with an importance matrix.
    factor: f32,
    /// Largest integer for a scale.
    most: f32,
}

impl RangeFormat {
    /// Fits all blocks: `PARTS` parts of `SIZE` values each.
    fn fit<const SIZE: usize, const PARTS: usize>(&self, isa: Isa, rows: &Rows<'_>) -> Blocks {
        let values = rows.values;
        let blend = Blend { span: 256, factor: self.factor };
        let (d, dmin, scales, minimums);
        let weights = dispatch(isa, BlendRows(blend, rows));
        if let Some(weights) = &weights {
            let search = thorough(self.search.largest);
            let weights = Weights::Given(weights);
            let fits = dispatch(isa, FitRanges::<SIZE> { values, weights, search });
            let positive = |values: &[f32]| {
                dispatch(isa, FitPositive::<PARTS> { values, weights: &fits.totals, largest: self.most })
            };
            let (s, m) = (positive(&fits.scales), positive(&fits.minimums));
            (d, scales) = halves(s);
            (dmin, minimums) = halves(m);
        } else {
            let fits = dispatch(isa, FitRanges::<SIZE> { values, weights: self.weights, search: self.search });
            let Ranges { scales: s, minimums: m, .. } = fits;
            (d, scales) = round_to_largest::<PARTS>(&s, self.most);
            (dmin, minimums) = round_to_largest::<PARTS>(&m, self.most);
        }
        let mut blocks = Blocks { d, dmin, scales, minimums, quants: Vec::new() };
        blocks.quants = blocks.round::<SIZE, PARTS>(isa, values, self.search.largest);
        if let Some(weights) = &weights {
            blocks.refit::<SIZE, PARTS>(isa, values, weights, self.search.largest);
        }
        blocks
    }
}

impl Blocks {
    /// Quants of all values.
    fn round<const SIZE: usize, const PARTS: usize>(&self, isa: Isa, values: &[f32], largest: f32) -> Vec<u8> {
        let scales = products::<PARTS>(&self.d, &self.scales);
        let minimums = products::<PARTS>(&self.dmin, &self.minimums);
        let quants = Quants::Integers { low: 0.0, high: largest };
        dispatch(isa, Round { values, size: SIZE, scales: &scales, minimums: Some(&minimums), quants })
    }

    /// Replaces d and dmin of blocks by the ones that are best for their quants, where that lowers the error.
    fn refit<const SIZE: usize, const PARTS: usize>(
        &mut self,
        isa: Isa,
        values: &[f32],
        weights: &[f32],
        largest: f32,
    ) {
        let parts = |at: usize| at * PARTS..(at + 1) * PARTS;
        let mut better = self.clone();
        for (block, (d, dmin)) in better.d.iter_mut().zip(&mut better.dmin).enumerate() {
            let (mut qq, mut qm, mut mm, mut qx, mut mx) = (0.0, 0.0, 0.0, 0.0, 0.0);
            for part in parts(block) {
                let (scale, minimum) = (f32::from(self.scales[part]), f32::from(self.minimums[part]));
                let at = part * SIZE..(part + 1) * SIZE;
                let sums = part_sums(&values[at.clone()], &weights[at.clone()], &self.quants[at]);
                qq += scale * scale * sums[0];
                qm += scale * minimum * sums[1];
                mm += minimum * minimum * sums[2];
                qx += scale * sums[3];
                mx += minimum * sums[4];
            }
            let determinant = qq * mm - qm * qm;
            if determinant > 0.0 {
                let found = ((qx * mm - mx * qm) / determinant, (qx * qm - mx * qq) / determinant);
                if found.0 > 0.0 && found.1 > 0.0 {
                    (*d, *dmin) = (f16::from_f32(found.0), f16::from_f32(found.1));
                }
            }
        }
        better.quants = better.round::<SIZE, PARTS>(isa, values, largest);
        for block in 0..self.d.len() {
            let error = |blocks: &Self| blocks.error::<SIZE, PARTS>(block, values, weights);
            if error(&better) < error(self) {
                (self.d[block], self.dmin[block]) = (better.d[block], better.dmin[block]);
                let at = block * 256..(block + 1) * 256;
                self.quants[at.clone()].copy_from_slice(&better.quants[at]);
            }
        }
    }

    /// Weighted squared error of a block.
    fn error<const SIZE: usize, const PARTS: usize>(&self, block: usize, values: &[f32], weights: &[f32]) -> f32 {
        let (d, dmin) = (self.d[block].to_f32(), self.dmin[block].to_f32());
        let mut total = 0.0;
        for part in block * PARTS..(block + 1) * PARTS {
            let (scale, minimum) = (d * f32::from(self.scales[part]), dmin * f32::from(self.minimums[part]));
            let at = part * SIZE..(part + 1) * SIZE;
            for ((x, w), q) in values[at.clone()].iter().zip(&weights[at.clone()]).zip(&self.quants[at]) {
                let difference = scale * f32::from(*q) - minimum - x;
                total += w * difference * difference;
            }
        }
        total
    }
}

/// Sums of `w q²`, `w q`, `w`, `w q x` and `w x`.
fn part_sums(values: &[f32], weights: &[f32], quants: &[u8]) -> [f32; 5] {
    let mut sums = [0.0; 5];
    for ((x, w), q) in values.iter().zip(weights).zip(quants) {
        let q = f32::from(*q);
        for (sum, term) in sums.iter_mut().zip([w * q * q, w * q, *w, w * q * x, w * x]) {
            *sum += term;
        }
    }
    sums
}

/// The scales of all parts as floats.
fn products<const PARTS: usize>(d: &[f16], quants: &[u8]) -> Vec<f32> {
    let blocks = d.iter().zip(quants.chunks_exact(PARTS));
    blocks.flat_map(|(d, quants)| quants.iter().map(|q| d.to_f32() * f32::from(*q))).collect()
}

/// Scales as halves.
fn halves(rounded: Rounded) -> (Vec<f16>, Vec<u8>) {
    (rounded.scales.into_iter().map(f16::from_f32).collect(), rounded.quants)
}

/// Rounds the numbers of each block to integers so that the largest becomes `most`.
fn round_to_largest<const PARTS: usize>(numbers: &[f32], most: f32) -> (Vec<f16>, Vec<u8>) {
    let mut scales = Vec::with_capacity(numbers.len() / PARTS);
    let mut rounded = Vec::with_capacity(numbers.len());
    for numbers in numbers.chunks_exact(PARTS) {
        let largest = numbers.iter().copied().fold(0.0, f32::max);
        let inverse = if largest > 0.0 { most / largest } else { 0.0 };
        scales.push(f16::from_f32(largest / most));
        rounded.extend(numbers.iter().map(|number| nearest(inverse * number, 0, most as i32) as u8));
    }
    (scales, rounded)
}

/// Writes f16 d, f16 dmin, 12 bytes of six-bit scales and minimums.
fn write_six_bits(blocks: &Blocks, block: usize, out: &mut [u8]) {
    let (scales, minimums) = (&blocks.scales[8 * block..][..8], &blocks.minimums[8 * block..][..8]);
    out[..2].copy_from_slice(&blocks.d[block].to_le_bytes());
    out[2..4].copy_from_slice(&blocks.dmin[block].to_le_bytes());
    for j in 0..4 {
        out[4 + j] = scales[j] | scales[j + 4] >> 4 << 6;
        out[8 + j] = minimums[j] | minimums[j + 4] >> 4 << 6;
        out[12 + j] = scales[j + 4] & 15 | minimums[j + 4] << 4;
    }
}

/// Quantizes to Q2_K.
pub(crate) fn q2_k(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let search = RangeSearch { largest: 3.0, start: -0.5, step: 0.1, steps: 15, absolute: true };
    let format = RangeFormat { search, weights: Weights::Magnitudes, factor: 1.0, most: 15.0 };
    let blocks = format.fit::<16, 16>(isa, rows);
    for (block, out) in out.as_chunks_mut::<84>().0.iter_mut().enumerate() {
        let parts = 16 * block..16 * block + 16;
        for (out, (scale, minimum)) in
            out.iter_mut().zip(blocks.scales[parts.clone()].iter().zip(&blocks.minimums[parts]))
        {
            *out = scale | minimum << 4;
        }
        write_pairs(&blocks.quants[256 * block..][..256], &mut out[16..80]);
        out[80..82].copy_from_slice(&blocks.d[block].to_le_bytes());
        out[82..].copy_from_slice(&blocks.dmin[block].to_le_bytes());
    }
}

/// Quantizes to Q4_K.
pub(crate) fn q4_k(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let search = RangeSearch { largest: 15.0, start: -1.0, step: 0.1, steps: 20, absolute: false };
    let format = RangeFormat { search, weights: Weights::Spread, factor: 2.0, most: 63.0 };
    let blocks = format.fit::<32, 8>(isa, rows);
    for (block, out) in out.as_chunks_mut::<144>().0.iter_mut().enumerate() {
        write_six_bits(&blocks, block, out);
        write_nibbles(&blocks.quants[256 * block..][..256], &mut out[16..]);
    }
}

/// Quantizes to Q5_K.
pub(crate) fn q5_k(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let search = RangeSearch { largest: 31.0, start: -0.5, step: 0.1, steps: 15, absolute: false };
    let format = RangeFormat { search, weights: Weights::Spread, factor: 2.0, most: 63.0 };
    let blocks = format.fit::<32, 8>(isa, rows);
    for (block, out) in out.as_chunks_mut::<176>().0.iter_mut().enumerate() {
        let quants = &blocks.quants[256 * block..][..256];
        write_six_bits(&blocks, block, out);
        write_bits(quants, 4, &mut out[16..48]);
        write_nibbles(quants, &mut out[48..]);
    }
}
