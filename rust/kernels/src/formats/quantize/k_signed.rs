//! Quantization to the K formats with signed scales, Q3_K and Q6_K: see `k_ranges`.

use half::f16;

use super::bits::{write_bits, write_pairs};
use super::round::{Quants, Round};
use super::rows::Rows;
use super::search::{extreme, nearest};
use super::symmetric::{FitScales, Fits, Search};
use super::weights::{Blend, BlendRows, Weights};
use crate::cpu::Isa;
use crate::math::dispatch;

/// Rounds the signed scales of the parts of a block so that the one of largest magnitude becomes `-most`.
pub(super) fn round_signed<const PARTS: usize>(scales: &[f32], most: i32) -> (Vec<f16>, Vec<i32>) {
    let mut halves = Vec::with_capacity(scales.len() / PARTS);
    let mut rounded = Vec::with_capacity(scales.len());
    for scales in scales.chunks_exact(PARTS) {
        let largest = extreme(scales);
        let inverse = if largest.abs() < 1e-15 { 0.0 } else { -most as f32 / largest };
        halves.push(f16::from_f32(if inverse == 0.0 { 0.0 } else { 1.0 / inverse }));
        rounded.extend(scales.iter().map(|scale| nearest(inverse * scale, -most, most - 1)));
    }
    (halves, rounded)
}

/// The scales of all parts as floats.
pub(super) fn part_scales(halves: &[f16], rounded: &[i32]) -> Vec<f32> {
    let parts = rounded.len() / halves.len().max(1);
    let blocks = halves.iter().zip(rounded.chunks_exact(parts.max(1)));
    blocks.flat_map(|(d, scales)| scales.iter().map(|scale| d.to_f32() * *scale as f32)).collect()
}

/// The scale of a block that is best for its quants.
fn refit_signed(
    block: usize,
    scales: &[i32],
    values: &[f32],
    weights: &[f32],
    quants: &[u8],
    zero: f32,
) -> Option<f16> {
    let (mut qq, mut qx) = (0.0, 0.0);
    for part in 16 * block..16 * (block + 1) {
        let scale = scales[part] as f32;
        for at in 16 * part..16 * (part + 1) {
            let q = scale * (f32::from(quants[at]) - zero);
            qq += weights[at] * q * q;
            qx += weights[at] * q * values[at];
        }
    }
    (qq > 0.0).then(|| f16::from_f32(qx / qq))
}

/// Weighted squared error of a block.
fn signed_error(
    block: usize,
    half: f16,
    scales: &[i32],
    values: &[f32],
    weights: &[f32],
    quants: &[u8],
    zero: f32,
) -> f32 {
    let mut total = 0.0;
    for part in 16 * block..16 * (block + 1) {
        let scale = half.to_f32() * scales[part] as f32;
        for at in 16 * part..16 * (part + 1) {
            let difference = scale * (f32::from(quants[at]) - zero) - values[at];
            total += weights[at] * difference * difference;
        }
    }
    total
}

/// Quantizes to Q3_K.
pub(crate) fn q3_k(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let values = rows.values;
    let weights = dispatch(isa, BlendRows(Blend { span: 256, factor: 2.0 }, rows));
    let (mut halves, scales): (Vec<f16>, Vec<i32>) = if let Some(weights) = &weights {
        let search = Search::Integers { largest: 4.0 };
        let fits = dispatch(isa, FitScales::<16> { values, weights: Weights::Given(weights), search });
        let (weights, search) = (Weights::Given(&fits.totals), Search::Integers { largest: 32.0 });
        let Fits { scales, inverses, .. } = dispatch(isa, FitScales::<16> { values: &fits.scales, weights, search });
        let parts = fits.scales.iter().zip(inverses.iter().flat_map(|inverse| [*inverse; 16]));
        let rounded = parts.map(|(scale, inverse)| nearest(inverse * scale, -32, 31)).collect();
        (scales.into_iter().map(f16::from_f32).collect(), rounded)
    } else {
        let search = Search::Descent { largest: 4.0 };
        let fits = dispatch(isa, FitScales::<16> { values, weights: Weights::Squares, search });
        round_signed::<16>(&fits.scales, 32)
    };
    let round = |halves: &[f16]| {
        let quants = Quants::Integers { low: -4.0, high: 3.0 };
        dispatch(isa, Round { values, size: 16, scales: &part_scales(halves, &scales), minimums: None, quants })
    };
    let mut quants = round(&halves);
    if let Some(weights) = &weights {
        let better: Vec<f16> = (0..halves.len())
            .map(|block| refit_signed(block, &scales, values, weights, &quants, 4.0).unwrap_or(halves[block]))
            .collect();
        let rounded = round(&better);
        for (block, half) in halves.iter_mut().enumerate() {
            let error = |half: f16, quants: &[u8]| signed_error(block, half, &scales, values, weights, quants, 4.0);
            if error(better[block], &rounded) < error(*half, &quants) {
                *half = better[block];
                quants[256 * block..][..256].copy_from_slice(&rounded[256 * block..][..256]);
            }
        }
    }
    for (block, out) in out.as_chunks_mut::<110>().0.iter_mut().enumerate() {
        let quants = &quants[256 * block..][..256];
        write_bits(quants, 2, &mut out[..32]);
        write_pairs(quants, &mut out[32..96]);
        let scales: [u8; 16] = std::array::from_fn(|part| (scales[16 * block + part] + 32) as u8);
        for j in 0..8 {
            out[96 + j] = scales[j] & 15 | (scales[j + 8] & 15) << 4;
        }
        for j in 0..4 {
            out[104 + j] = (0..4).fold(0, |bits, k| bits | (scales[j + 4 * k] >> 4) << (2 * k));
        }
        out[108..].copy_from_slice(&halves[block].to_le_bytes());
    }
}

/// Quantizes to Q6_K; the importance of a column is the weight of its errors as it is.
pub(crate) fn q6_k(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let values = rows.values;
    let repeated = rows.importance.map(|importance| importance.repeat(values.len() / rows.columns.max(1)));
    let weights = repeated.as_deref().map_or(Weights::Squares, Weights::Given);
    let fits = dispatch(isa, FitScales::<16> { values, weights, search: Search::Integers { largest: 32.0 } });
    let (halves, scales) = round_signed::<16>(&fits.scales, 128);
    let quants = dispatch(
        isa,
        Round {
            values,
            size: 16,
            scales: &part_scales(&halves, &scales),
            minimums: None,
            quants: Quants::Integers { low: -32.0, high: 31.0 },
        },
    );
    for (block, out) in out.as_chunks_mut::<210>().0.iter_mut().enumerate() {
        for half in 0..2 {
            let quants = &quants[256 * block + 128 * half..][..128];
            for l in 0..32 {
                out[64 * half + l] = quants[l] & 15 | (quants[l + 64] & 15) << 4;
                out[64 * half + l + 32] = quants[l + 32] & 15 | (quants[l + 96] & 15) << 4;
                out[128 + 32 * half + l] =
                    quants[l] >> 4 | quants[l + 32] >> 4 << 2 | quants[l + 64] >> 4 << 4 | quants[l + 96] >> 4 << 6;
            }
        }
        for (out, scale) in out[192..208].iter_mut().zip(&scales[16 * block..][..16]) {
            *out = *scale as u8;
        }
        out[208..].copy_from_slice(&halves[block].to_le_bytes());
    }
}
