//! Quantization to the formats with one scale for a block that gain from a search: IQ4_NL, IQ4_XS and Q2_0 always, Q4_0, Q4_1,
//! Q5_0 and Q5_1 with an importance matrix.

use half::f16;

use super::k_signed::{part_scales, round_signed};
use super::range::{FitRanges, RangeSearch};
use super::round::{Quants, Round};
use super::rows::Rows;
use super::symmetric::{FitScales, Search};
use super::weights::{Blend, BlendRows, Weights, soften};
use crate::cpu::Isa;
use crate::formats::simple::write_quants;
use crate::math::dispatch;

/// Fits the scales of parts of 32 values with the table of IQ4_NL; squares are averaged over `span` values.
fn fit_non_linear(isa: Isa, rows: &Rows<'_>, span: usize) -> Vec<f32> {
    let mut given = dispatch(isa, BlendRows(Blend { span, factor: 2.0 }, rows));
    if let Some(weights) = &mut given {
        soften(weights, false);
    }
    let weights = given.as_deref().map_or(Weights::Spread, Weights::Given);
    dispatch(isa, FitScales::<32> { values: rows.values, weights, search: Search::NonLinear }).scales
}

/// Indices of all values with these scales.
fn indices(isa: Isa, rows: &Rows<'_>, scales: &[f32]) -> Vec<u8> {
    let round = Round { values: rows.values, size: 32, scales, minimums: None, quants: Quants::NonLinear };
    dispatch(isa, round)
}

/// Writes the nibbles of 32 indices.
fn write_nibbles(indices: &[u8], out: &mut [u8]) {
    for (j, out) in out.iter_mut().enumerate() {
        *out = indices[j] | indices[j + 16] << 4;
    }
}

/// Quantizes to IQ4_NL.
pub(crate) fn iq4_nl(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let halves: Vec<f16> = fit_non_linear(isa, rows, 32).into_iter().map(f16::from_f32).collect();
    let scales: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
    let indices = indices(isa, rows, &scales);
    for ((half, indices), out) in halves.iter().zip(indices.chunks_exact(32)).zip(out.as_chunks_mut::<18>().0) {
        out[..2].copy_from_slice(&half.to_le_bytes());
        write_nibbles(indices, &mut out[2..]);
    }
}

/// Quantizes to IQ4_XS.
pub(crate) fn iq4_xs(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let (halves, scales) = round_signed::<8>(&fit_non_linear(isa, rows, 256), 32);
    let indices = indices(isa, rows, &part_scales(&halves, &scales));
    for (block, out) in out.as_chunks_mut::<136>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&halves[block].to_le_bytes());
        out[2..8].fill(0);
        for (part, scale) in scales[8 * block..][..8].iter().enumerate() {
            let bits = (scale + 32) as u8;
            out[4 + part / 2] |= (bits & 15) << (4 * (part % 2));
            out[2 + part / 4] |= bits >> 4 << (2 * (part % 4));
            write_nibbles(&indices[256 * block + 32 * part..][..32], &mut out[8 + 16 * part..][..16]);
        }
    }
}

/// Weights of errors: squares are averaged over whole rows.
fn row_weights(isa: Isa, rows: &Rows<'_>) -> Option<Vec<f32>> {
    dispatch(isa, BlendRows(Blend { span: rows.columns, factor: 1.0 }, rows))
}

/// Quantizes to Q4_0 (`largest` 8) or Q5_0 (16) with an importance matrix.
pub(crate) fn signed<const BYTES: usize>(isa: Isa, rows: &Rows<'_>, largest: f32, out: &mut [u8]) {
    let given = row_weights(isa, rows);
    let weights = given.as_deref().map_or(Weights::Squares, Weights::Given);
    let values = rows.values;
    let fits = dispatch(isa, FitScales::<32> { values, weights, search: Search::Integers { largest } });
    let halves: Vec<f16> = fits.scales.into_iter().map(f16::from_f32).collect();
    let scales: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
    let quants = Quants::Integers { low: -largest, high: largest - 1.0 };
    let quants = dispatch(isa, Round { values, size: 32, scales: &scales, minimums: None, quants });
    for ((half, quants), out) in halves.iter().zip(quants.as_chunks::<32>().0).zip(out.as_chunks_mut::<BYTES>().0) {
        out[..2].copy_from_slice(&half.to_le_bytes());
        write_quants(&mut out[2..], quants);
    }
}

/// Quantizes to Q2_0, whose quants stand for -1, 0, 1 and 2; the fit has them with the opposite sign.
pub(crate) fn q2_0(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let given = row_weights(isa, rows);
    let weights = given.as_deref().map_or(Weights::Equal, Weights::Given);
    let values = rows.values;
    let fits = dispatch(isa, FitScales::<64> { values, weights, search: Search::Quarter });
    let halves: Vec<f16> = fits.scales.into_iter().map(f16::from_f32).collect();
    let scales: Vec<f32> = halves.iter().map(|half| half.to_f32()).collect();
    let quants = Quants::Integers { low: -2.0, high: 1.0 };
    let quants = dispatch(isa, Round { values, size: 64, scales: &scales, minimums: None, quants });
    for ((half, quants), out) in halves.iter().zip(quants.as_chunks::<64>().0).zip(out.as_chunks_mut::<18>().0) {
        out[..2].copy_from_slice(&(-*half).to_le_bytes());
        for (byte, quants) in out[2..].iter_mut().zip(quants.as_chunks::<4>().0) {
            *byte = (0..4).fold(0, |bits, at| bits | (3 - quants[at]) << (2 * at));
        }
    }
}

/// Quantizes to Q4_1 (`largest` 15) or Q5_1 (31) with an importance matrix.
pub(crate) fn ranged<const BYTES: usize>(isa: Isa, rows: &Rows<'_>, largest: f32, out: &mut [u8]) {
    let given = row_weights(isa, rows);
    let weights = given.as_deref().map_or(Weights::Spread, Weights::Given);
    let values = rows.values;
    let search = RangeSearch { largest, start: -0.9, step: 0.05, steps: 36, absolute: false };
    let fits = dispatch(isa, FitRanges::<32> { values, weights, search });
    let half = |numbers: &[f32]| -> Vec<f16> { numbers.iter().map(|number| f16::from_f32(*number)).collect() };
    let float = |halves: &[f16]| -> Vec<f32> { halves.iter().map(|half| half.to_f32()).collect() };
    let (d, m) = (half(&fits.scales), half(&fits.minimums));
    let quants = Quants::Integers { low: 0.0, high: largest };
    let (scales, minimums) = (float(&d), float(&m));
    let quants = dispatch(isa, Round { values, size: 32, scales: &scales, minimums: Some(&minimums), quants });
    for (block, (quants, out)) in quants.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0).enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        out[2..4].copy_from_slice(&(-m[block]).to_le_bytes());
        write_quants(&mut out[4..], quants);
    }
}
