//! Four-bit formats whose quants choose entries of a table: IQ4_NL, IQ4_XS, MXFP4.

use super::blocks::{Blocks, read_u16};
use super::layout::{Bits, Packing, Scales, Unpacked};
use super::simple::nibbles;
use crate::math::ln;

/// The values of IQ4_NL and IQ4_XS, plus 128:
/// -127 -104 -83 -65 -49 -35 -22 -10 1 13 25 38 53 69 89 113.
pub(super) static NON_LINEAR: [u8; 16] = [1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241];

/// Twice the values of an E2M1 float, plus 12: 0 1 2 3 4 6 8 12, then the same negated (OCP Microscaling Formats 1.0).
pub(super) static E2M1: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];

/// f16 d, 16 bytes of nibbles: `table[q] · d`.
pub(crate) struct Iq4Nl;

impl Blocks for Iq4Nl {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 18;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: Some(&NON_LINEAR), zero: 128, scales: Scales::Half, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        nibbles(&block[2..18], out);
    }
}

/// f16 d, the high bits of eight six-bit scales, their low bits, 128 bytes of nibbles: `table[q] · d · (scale - 32)`.
pub(crate) struct Iq4Xs;

impl Blocks for Iq4Xs {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 136;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: Some(&NON_LINEAR), zero: 128, scales: Scales::Signed32, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        let high = read_u16(block, 2);
        for part in 0..8 {
            let low = block[4 + part / 2] >> (4 * (part % 2)) & 15;
            let high = (high >> (2 * part) & 3) as u8;
            out.scales[part] = (low | high << 4).wrapping_sub(32);
        }
        for (quants, bytes) in out.quants.as_chunks_mut::<32>().0.iter_mut().zip(block[8..].as_chunks::<16>().0) {
            for (j, byte) in bytes.iter().enumerate() {
                quants[j] = byte & 15;
                quants[j + 16] = byte >> 4;
            }
        }
    }
}

/// A power of two in one byte, 16 bytes of nibbles: `table[q] · 2^(e - 128)`.
pub(crate) struct Mxfp4;

impl Blocks for Mxfp4 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 17;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: Some(&E2M1), zero: 12, scales: Scales::Brain, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = half_power(block[0]);
        nibbles(&block[1..17], out);
    }
}

/// 2^(e - 128) as bf16; the two smallest are subnormal.
#[inline(always)]
fn half_power(e: u8) -> u16 {
    if e < 2 { 0x20 << e } else { u16::from(e - 1) << 7 }
}

/// Quantizes to MXFP4: a power of two from the largest magnitude, and the nearest table entries.
#[inline(always)]
pub(crate) fn quantize_mxfp4(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<17>().0) {
        let largest = values.iter().fold(0.0, |found: f32, value| found.max(value.abs()));
        // The reference computes the base-2 logarithm in f32, which rounds up to the next integer just below a power of two.
        let log2 = (ln(f64::from(largest)) * std::f64::consts::LOG2_E) as f32;
        let e = if largest > 0.0 { (log2.floor() - 2.0 + 127.0) as u8 } else { 0 };
        let d = f32::from_bits(u32::from(half_power(e)) << 16);
        let nearest = |value: f32| {
            let mut best = (f32::INFINITY, 0);
            for (index, entry) in E2M1.iter().enumerate() {
                let error = (d * (f32::from(*entry) - 12.0) - value).abs();
                if error < best.0 {
                    best = (error, index as u8);
                }
            }
            best.1
        };
        out[0] = e;
        for j in 0..16 {
            out[1 + j] = nearest(values[j]) | nearest(values[j + 16]) << 4;
        }
    }
}
