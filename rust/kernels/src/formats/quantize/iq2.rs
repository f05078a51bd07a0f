//! Quantization to IQ2_XXS, IQ2_XS and IQ2_S: eight magnitudes of 1, 3.125 and 5.375 at once.

use super::grid::{self, Grid};
use super::grid_blocks::{GridBlocks, GridFormat, Signs};
use super::grid_search::Points;
use super::rows::Rows;
use crate::cpu::Isa;

/// The magnitudes.
const VALUES: [[f32; 8]; 1] = [[1.0, 3.125, 5.375, 0.0, 0.0, 0.0, 0.0, 0.0]];

/// The largest magnitude becomes one of 4 to 8.5.
const TRIALS: [[f32; 4]; 2] =
    [[1.0 / 4.0, 1.0 / 4.4, 1.0 / 4.8, 1.0 / 5.2], [1.0 / 5.6, 1.0 / 6.2, 1.0 / 7.0, 1.0 / 8.5]];

fn format(grid: &Grid, signs: Signs, factor: f32) -> GridFormat<'_> {
    let points = Points { grid, values: &VALUES, free: false, trials: &TRIALS };
    GridFormat { points, signs, most: 15, factor }
}

/// Quantizes to IQ2_XXS.
pub(crate) fn iq2_xxs(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let GridBlocks { d, scales, points, signs, .. } = format(&grid::IQ2_XXS, Signs::Even, 1.0).fit::<32>(isa, rows);
    for (block, out) in out.as_chunks_mut::<66>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        for (part, out) in out[2..].as_chunks_mut::<8>().0.iter_mut().enumerate() {
            let mut word = u32::from(scales[8 * block + part]) << 28;
            for l in 0..4 {
                let group = 32 * block + 4 * part + l;
                out[l] = points[group] as u8;
                word |= u32::from(signs[group] & 127) << (7 * l);
            }
            out[4..].copy_from_slice(&word.to_le_bytes());
        }
    }
}

/// Quantizes to IQ2_XS.
pub(crate) fn iq2_xs(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let GridBlocks { d, scales, points, signs, .. } = format(&grid::IQ2_XS, Signs::Even, 1.0).fit::<16>(isa, rows);
    for (block, out) in out.as_chunks_mut::<74>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        for (group, out) in out[2..66].as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let group = 32 * block + group;
            *out = (points[group] | u16::from(signs[group] & 127) << 9).to_le_bytes();
        }
        write_scales(&scales[16 * block..][..16], &mut out[66..]);
    }
}

/// Quantizes to IQ2_S.
pub(crate) fn iq2_s(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    let GridBlocks { d, scales, points, signs, .. } = format(&grid::IQ2_S, Signs::All, 2.0).fit::<16>(isa, rows);
    for (block, out) in out.as_chunks_mut::<82>().0.iter_mut().enumerate() {
        out[..2].copy_from_slice(&d[block].to_le_bytes());
        let points = &points[32 * block..][..32];
        for (group, point) in points.iter().enumerate() {
            out[2 + group] = *point as u8;
        }
        out[34..66].copy_from_slice(&signs[32 * block..][..32]);
        for (out, points) in out[66..74].iter_mut().zip(points.as_chunks::<4>().0) {
            *out = (0..4).fold(0, |bits, l| bits | ((points[l] >> 8) as u8) << (2 * l));
        }
        write_scales(&scales[16 * block..][..16], &mut out[74..]);
    }
}

/// Writes four-bit scales, low bits first.
fn write_scales(scales: &[u8], out: &mut [u8]) {
    for (out, scales) in out.iter_mut().zip(scales.as_chunks::<2>().0) {
        *out = scales[0] | scales[1] << 4;
    }
}
