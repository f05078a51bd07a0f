//! Quantization to IQ1_S and IQ1_M: eight of -1, 0 and 1 at once, all moved up or down by an eighth.

use super::grid;
use super::grid_blocks::{GridBlocks, GridFormat, Signs};
use super::grid_search::Points;
use super::rows::Rows;
use crate::cpu::Isa;

/// The values moved up, then those moved down.
const VALUES: [[f32; 8]; 2] =
    [[-0.875, 0.125, 1.125, 0.0, 0.0, 0.0, 0.0, 0.0], [-1.125, -0.125, 0.875, 0.0, 0.0, 0.0, 0.0, 0.0]];

/// Scales as multiples of the root mean square.
const TRIALS: [[f32; 4]; 2] = [[0.7, 0.9, 1.05, 1.2], [1.35, 1.55, 1.8, 2.3]];

fn format(free: bool) -> GridFormat<'static> {
    let points = Points { grid: &grid::IQ1, values: &VALUES, free, trials: &TRIALS };
    GridFormat { points, signs: Signs::None, most: 7, factor: 2.0 }
}

/// Quantizes to IQ1_S: up or down for 32 values.
pub(crate) fn iq1_s(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let GridBlocks { d, scales, points, variants, .. } = format(false).fit::<32>(isa, rows);
    for (block, out) in out.as_chunks_mut::<50>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        for part in 0..8 {
            let first = 32 * block + 4 * part;
            let mut word = u16::from(scales[8 * block + part]) << 12 | u16::from(variants[first]) << 15;
            for (l, point) in points[first..first + 4].iter().enumerate() {
                out[2 + 4 * part + l] = *point as u8;
                word |= (point >> 8 & 7) << (3 * l);
            }
            out[34 + 2 * part..][..2].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Quantizes to IQ1_M: up or down for 8 values, with a scale for 16.
pub(crate) fn iq1_m(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let GridBlocks { d, scales, points, variants, .. } = format(true).fit::<16>(isa, rows);
    for (block, out) in out.as_chunks_mut::<56>().0.iter_mut().enumerate() {
        let points = &points[32 * block..][..32];
        let bits = |group: usize| (points[group] >> 8) as u8 | variants[32 * block + group] << 3;
        for (out, point) in out[..32].iter_mut().zip(points) {
            *out = *point as u8;
        }
        for (pair, out) in out[32..48].iter_mut().enumerate() {
            *out = bits(2 * pair) | bits(2 * pair + 1) << 4;
        }
        let half = d[block].to_bits();
        for (word, out) in out[48..].as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let scales = &scales[16 * block + 4 * word..][..4];
            let low = (0..4).fold(0, |bits, k| bits | u16::from(scales[k]) << (3 * k));
            *out = (low | (half >> (4 * word) & 15) << 12).to_le_bytes();
        }
    }
}
