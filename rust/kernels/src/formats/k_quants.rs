//! The K formats: 256 weights with f16 scales, divided into parts with small integer scales.

use super::blocks::{Blocks, read_u16};
use super::layout::{Bits, Packing, Scales, Unpacked};

/// 16 bytes of four-bit scales and minimums, 64 bytes of bit pairs, f16 d, f16 dmin.
pub(crate) struct Q2K;

impl Blocks for Q2K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 84;
    const PACKING: Packing = Packing { bits: Bits::Two, table: None, zero: 0, scales: Scales::Minimum16, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 80);
        out.minimum = read_u16(block, 82);
        out.scales.copy_from_slice(&block[..16]);
        bit_pairs(&block[16..80], out);
    }
}

/// 32 bytes of high bits, 64 bytes of bit pairs, 12 bytes of six-bit scales, f16 d.
pub(crate) struct Q3K;

impl Blocks for Q3K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 110;
    const PACKING: Packing = Packing { bits: Bits::Three, table: None, zero: 4, scales: Scales::Signed16, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 108);
        bit_pairs(&block[32..96], out);
        for (group, quants) in out.quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (quant, high) in quants.iter_mut().zip(&block[..32]) {
                *quant |= (high >> group & 1) << 2;
            }
        }
        let bytes = &block[96..108];
        for j in 0..16 {
            let low = if j < 8 { bytes[j] & 15 } else { bytes[j - 8] >> 4 };
            let high = bytes[8 + j % 4] >> (2 * (j / 4)) & 3;
            out.scales[j] = (low | high << 4).wrapping_sub(32);
        }
    }
}

/// Unpacks 256 quants of two bits from 64 bytes: 32 bytes hold four runs of 32.
#[inline(always)]
pub(crate) fn bit_pairs(bytes: &[u8], out: &mut Unpacked) {
    for (quants, bytes) in out.quants.as_chunks_mut::<128>().0.iter_mut().zip(bytes.as_chunks::<32>().0) {
        for (run, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            eights(quants, |at| word(bytes, at) >> (2 * run) & TWO_BITS);
        }
    }
}

/// f16 d, f16 dmin, 12 bytes of six-bit scales and minimums, 128 bytes of nibbles.
pub(crate) struct Q4K;

impl Blocks for Q4K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 144;
    const PACKING: Packing = Packing { bits: Bits::Four, table: None, zero: 0, scales: Scales::Minimum32, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        out.minimum = read_u16(block, 2);
        six_bit_scales(&block[4..16], out);
        for (quants, bytes) in out.quants.as_chunks_mut::<64>().0.iter_mut().zip(block[16..].as_chunks::<32>().0) {
            let (low, high) = quants.split_at_mut(32);
            eights(low, |at| word(bytes, at) & FOUR_BITS);
            eights(high, |at| word(bytes, at) >> 4 & FOUR_BITS);
        }
    }
}

/// As Q4_K, with the fifth bit of every quant in 32 bytes before the nibbles.
pub(crate) struct Q5K;

impl Blocks for Q5K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 176;
    const PACKING: Packing = Packing { bits: Bits::Five, table: None, zero: 0, scales: Scales::Minimum32, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        out.minimum = read_u16(block, 2);
        six_bit_scales(&block[4..16], out);
        let high = &block[16..48];
        let low = block[48..].as_chunks::<32>().0;
        for (group, (quants, bytes)) in out.quants.as_chunks_mut::<64>().0.iter_mut().zip(low).enumerate() {
            let (first, second) = quants.split_at_mut(32);
            eights(first, |at| word(bytes, at) & FOUR_BITS | (word(high, at) >> (2 * group) & ONE_BIT) << 4);
            eights(second, |at| word(bytes, at) >> 4 & FOUR_BITS | (word(high, at) >> (2 * group + 1) & ONE_BIT) << 4);
        }
    }
}

/// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 signed scales, f16 d.
pub(crate) struct Q6K;

impl Blocks for Q6K {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 210;
    const PACKING: Packing = Packing { bits: Bits::Six, table: None, zero: 32, scales: Scales::Signed16, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 208);
        out.scales.copy_from_slice(&block[192..208]);
        let halves = block[..128].as_chunks::<64>().0.iter().zip(block[128..192].as_chunks::<32>().0);
        for ((low, high), quants) in halves.zip(out.quants.as_chunks_mut::<128>().0) {
            for (run, quants) in quants.as_chunks_mut::<32>().0.iter_mut().enumerate() {
                let low = &low[32 * (run % 2)..][..32];
                eights(quants, |at| {
                    let (low, high) = (word(low, at) >> (4 * (run / 2)), word(high, at) >> (2 * run));
                    low & FOUR_BITS | (high & TWO_BITS) << 4
                });
            }
        }
    }
}

/// The same bits of eight bytes.
const ONE_BIT: u64 = 0x0101_0101_0101_0101;
const TWO_BITS: u64 = 0x0303_0303_0303_0303;
const FOUR_BITS: u64 = 0x0f0f_0f0f_0f0f_0f0f;
const SIX_BITS: u64 = 0x3f3f_3f3f_3f3f_3f3f;

/// Eight bytes from `at` on, as a number: operations on all of them at once, since the compiler does not make vectors of
/// loops over so few bytes.
#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(eight)
}

/// Sets the quants, eight at a time; the function gets the index of the first.
#[inline(always)]
fn eights(quants: &mut [u8], values: impl Fn(usize) -> u64) {
    for (index, quants) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
        *quants = values(8 * index).to_le_bytes();
    }
}

/// Unpacks eight scales and eight minimums of six bits from 12 bytes.
#[inline(always)]
fn six_bit_scales(bytes: &[u8], out: &mut Unpacked) {
    let (low, last) = (word(bytes, 0), word(bytes, 4) >> 32);
    let ends = low & SIX_BITS;
    // Bits 6 and 7 of the first bytes become bits 4 and 5.
    let tops = low >> 6 & TWO_BITS;
    let scales = ends & 0xffff_ffff | (last & FOUR_BITS | tops << 4) << 32;
    let minimums = ends >> 32 | (last >> 4 & FOUR_BITS | tops >> 32 << 4) << 32;
    out.scales[..8].copy_from_slice(&scales.to_le_bytes());
    out.minimums[..8].copy_from_slice(&minimums.to_le_bytes());
}
