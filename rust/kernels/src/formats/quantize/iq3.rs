//! Quantization to IQ3_XXS and IQ3_S: four of eight magnitudes at once.

use super::grid;
use super::grid_blocks::{GridBlocks, GridFormat, Signs};
use super::grid_search::Points;
use super::rows::Rows;
use crate::cpu::Isa;

/// The magnitudes of IQ3_XXS.
const XXS_VALUES: [[f32; 8]; 1] = [[1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.5]];
/// The magnitudes of IQ3_S.
const S_VALUES: [[f32; 8]; 1] = [[1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]];

/// The largest magnitude becomes one of 11.5 to 20.
const TRIALS: [[f32; 4]; 2] =
    [[1.0 / 11.5, 1.0 / 12.7, 1.0 / 13.8, 1.0 / 14.8], [1.0 / 15.6, 1.0 / 16.6, 1.0 / 18.0, 1.0 / 20.0]];

/// Quantizes to IQ3_XXS.
pub(crate) fn iq3_xxs(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let points = Points { grid: &grid::IQ3_XXS, values: &XXS_VALUES, free: false, trials: &TRIALS };
    let format = GridFormat { points, signs: Signs::Even, most: 15, factor: 2.0 };
    let GridBlocks { d, scales, points, signs, .. } = format.fit::<32>(isa, rows);
    for (block, out) in out.as_chunks_mut::<98>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        for (out, point) in out[2..66].iter_mut().zip(&points[64 * block..]) {
            *out = *point as u8;
        }
        for (part, out) in out[66..].as_chunks_mut::<4>().0.iter_mut().enumerate() {
            let signs = &signs[32 * block + 4 * part..][..4];
            let word = (0..4).fold(0, |bits, l| bits | u32::from(signs[l] & 127) << (7 * l));
            *out = (word | u32::from(scales[8 * block + part]) << 28).to_le_bytes();
        }
    }
}

/// Quantizes to IQ3_S.
pub(crate) fn iq3_s(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let points = Points { grid: &grid::IQ3_S, values: &S_VALUES, free: false, trials: &TRIALS };
    let format = GridFormat { points, signs: Signs::All, most: 15, factor: 2.0 };
    let GridBlocks { d, scales, points, signs, .. } = format.fit::<32>(isa, rows);
    for (block, out) in out.as_chunks_mut::<110>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        let points = &points[64 * block..][..64];
        for (out, point) in out[2..66].iter_mut().zip(points) {
            *out = *point as u8;
        }
        for (out, points) in out[66..74].iter_mut().zip(points.as_chunks::<8>().0) {
            *out = (0..8).fold(0, |bits, k| bits | ((points[k] >> 8) as u8) << k);
        }
        out[74..106].copy_from_slice(&signs[32 * block..][..32]);
        for (part, out) in out[106..].iter_mut().enumerate() {
            *out = scales[8 * block + 2 * part] | scales[8 * block + 2 * part + 1] << 4;
        }
    }
}
