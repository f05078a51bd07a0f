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
            for (quant, byte) in quants.iter_mut().zip(bytes) {
                *quant = byte >> (2 * run) & 3;
            }
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
            for l in 0..32 {
                quants[l] = bytes[l] & 15;
                quants[l + 32] = bytes[l] >> 4;
            }
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
            for l in 0..32 {
                let bits = high[l] >> (2 * group);
                quants[l] = bytes[l] & 15 | (bits & 1) << 4;
                quants[l + 32] = bytes[l] >> 4 | (bits & 2) << 3;
            }
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
        for half in 0..2 {
            let (low, high) = (&block[64 * half..][..64], &block[128 + 32 * half..][..32]);
            let quants = &mut out.quants[128 * half..][..128];
            for l in 0..32 {
                quants[l] = low[l] & 15 | (high[l] & 3) << 4;
                quants[l + 32] = low[l + 32] & 15 | (high[l] >> 2 & 3) << 4;
                quants[l + 64] = low[l] >> 4 | (high[l] >> 4 & 3) << 4;
                quants[l + 96] = low[l + 32] >> 4 | (high[l] >> 6) << 4;
            }
        }
    }
}

/// Unpacks eight scales and eight minimums of six bits from 12 bytes.
#[inline(always)]
fn six_bit_scales(bytes: &[u8], out: &mut Unpacked) {
    for j in 0..4 {
        out.scales[j] = bytes[j] & 63;
        out.minimums[j] = bytes[j + 4] & 63;
        out.scales[j + 4] = bytes[j + 8] & 15 | bytes[j] >> 6 << 4;
        out.minimums[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
}
