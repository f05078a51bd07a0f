//! Formats with three values, -d, 0 and d: TQ1_0, TQ2_0.

use half::f16;

use super::blocks::{Blocks, read_u16};
use super::compression::{CompressedQuants, CompressedScales, Compression, Plane};
use super::k_quants::bit_pairs;
use super::layout::{Bits, Packing, Scales, Unpacked};
use super::quantize::search::inverse;

/// One f16 for 256 weights; the byte scales of the decompressed layout are 1.
const PACKING: Packing = Packing { bits: Bits::Two, table: None, zero: 1, scales: Scales::Signed32, factor: 1.0 };

/// 48 + 4 bytes of five (four) base-3 digits, f16 d.
pub struct Tq1_0;

impl Blocks for Tq1_0 {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 54;
    const PACKING: Packing = PACKING;
    const FOLDING: Option<Compression> =
        Some(Compression { quants: CompressedQuants::Ternary(Plane::None), scales: CompressedScales::Ones });

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 52);
        out.scales = [1; 16];
        for (first, bytes, digits) in RUNS {
            for digit in 0..digits {
                for l in 0..bytes {
                    let shifted = block[first + l].wrapping_mul(POWERS[digit]);
                    out.quants[element(first, bytes, digit, l)] = ((u16::from(shifted) * 3) >> 8) as u8;
                }
            }
        }
    }
}

/// Runs of bytes: first byte, bytes, digits in each.
const RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];
/// Powers of 3, which move a digit to the front.
const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Index of the weight that a digit of byte `l` of a run holds.
#[inline(always)]
const fn element(first: usize, bytes: usize, digit: usize, l: usize) -> usize {
    5 * first + bytes * digit + l
}

/// 64 bytes of bit pairs, f16 d.
pub struct Tq2_0;

impl Blocks for Tq2_0 {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 66;
    const PACKING: Packing = PACKING;
    const FOLDING: Option<Compression> =
        Some(Compression { quants: CompressedQuants::Plain, scales: CompressedScales::Ones });

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 64);
        out.scales = [1; 16];
        bit_pairs(&block[..64], out);
    }
}

/// Scale and quants (0, 1, 2) of 256 values: the largest magnitude is the scale.
#[inline(always)]
fn ternary(values: &[f32; 256]) -> (f16, [u8; 256]) {
    let d = values.iter().fold(0.0, |found: f32, value| found.max(value.abs()));
    let id = inverse(d);
    (f16::from_f32(d), values.map(|value| ((value * id).round() as i8 + 1) as u8))
}

/// Quantizes to TQ1_0.
#[inline(always)]
pub(crate) fn quantize_tq1_0(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<54>().0) {
        let (d, quants) = ternary(values);
        for (first, bytes, digits) in RUNS {
            for l in 0..bytes {
                let number = (0..digits).fold(0, |sum, digit| {
                    sum + u32::from(quants[element(first, bytes, digit, l)]) * u32::from(POWERS[4 - digit])
                });
                // Rounded up, so that multiplying by 3 extracts the digits exactly.
                out[first + l] = (number * 256).div_ceil(243) as u8;
            }
        }
        out[52..].copy_from_slice(&d.to_le_bytes());
    }
}

/// Quantizes to TQ2_0.
#[inline(always)]
pub(crate) fn quantize_tq2_0(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<256>().0.iter().zip(out.as_chunks_mut::<66>().0) {
        let (d, quants) = ternary(values);
        for (byte, out) in out[..64].iter_mut().enumerate() {
            let first = byte / 32 * 128 + byte % 32;
            *out = (0..4).fold(0, |bits, run| bits | quants[first + 32 * run] << (2 * run));
        }
        out[64..].copy_from_slice(&d.to_le_bytes());
    }
}
