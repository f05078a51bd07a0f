//! Formats with three values, -d, 0 and d: TQ1_0, TQ2_0.

use super::blocks::{Blocks, read_u16};
use super::compression::{CompressedQuants, CompressedScales, Compression, Plane};
use super::k_quants::bit_pairs;
use super::layout::{Bits, Packing, Scales, Unpacked};

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
pub(super) const RUNS: [(usize, usize, usize); 3] = [(0, 32, 5), (32, 16, 5), (48, 4, 4)];
/// Powers of 3, which move a digit to the front.
pub(super) const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// Index of the weight that a digit of byte `l` of a run holds.
#[inline(always)]
pub(super) const fn element(first: usize, bytes: usize, digit: usize, l: usize) -> usize {
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
