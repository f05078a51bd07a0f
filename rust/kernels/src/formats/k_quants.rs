//! The K formats: 256 weights with f16 scales, divided into parts with small integer scales.

use super::blocks::{Bits, Blocks, Packing, Scales, Unpacked, read_u16};

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

/// As Q4_K with a fifth bit of every quant in 32 bytes before the nibbles.
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

/// Eight scales and eight minimums of six bits from 12 bytes.
#[inline(always)]
fn six_bit_scales(bytes: &[u8], out: &mut Unpacked) {
    for j in 0..4 {
        out.scales[j] = bytes[j] & 63;
        out.minimums[j] = bytes[j + 4] & 63;
        out.scales[j + 4] = bytes[j + 8] & 15 | bytes[j] >> 6 << 4;
        out.minimums[j + 4] = bytes[j + 8] >> 4 | bytes[j + 4] >> 6 << 4;
    }
}
