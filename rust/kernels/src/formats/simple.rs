//! Formats with one f16 scale (and minimum) for 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! In the nibble formats, byte `j` of 16 holds weight `j` in its low bits and weight `j + 16` in its high bits.

use super::blocks::{Blocks, read_u16};
use super::layout::{Bits, Packing, Scales, Unpacked};

/// f16 d, 16 bytes of nibbles: `(q - 8) · d`.
pub(crate) struct Q4_0;

impl Blocks for Q4_0 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 18;
    const PACKING: Packing = Packing { bits: Bits::Four, table: None, zero: 8, scales: Scales::Half, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        nibbles(&block[2..18], out);
    }
}

/// f16 d, f16 m, 16 bytes of nibbles: `q · d + m`.
pub(crate) struct Q4_1;

impl Blocks for Q4_1 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 20;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: None, zero: 0, scales: Scales::HalfMinimum, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        out.minimum = read_u16(block, 2) ^ SIGN;
        nibbles(&block[4..20], out);
    }
}

/// f16 d, the fifth bits of 32 quants, 16 bytes of nibbles: `(q - 16) · d`.
pub(crate) struct Q5_0;

impl Blocks for Q5_0 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 22;
    const PACKING: Packing = Packing { bits: Bits::Five, table: None, zero: 16, scales: Scales::Half, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        nibbles(&block[6..22], out);
        fifth_bits(&block[2..6], out);
    }
}

/// f16 d, f16 m, the fifth bits of 32 quants, 16 bytes of nibbles: `q · d + m`.
pub(crate) struct Q5_1;

impl Blocks for Q5_1 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 24;
    const PACKING: Packing =
        Packing { bits: Bits::Five, table: None, zero: 0, scales: Scales::HalfMinimum, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        out.minimum = read_u16(block, 2) ^ SIGN;
        nibbles(&block[8..24], out);
        fifth_bits(&block[4..8], out);
    }
}

/// Sign bit of an f16: these formats add their minimum, whereas the kernels subtract it.
const SIGN: u16 = 0x8000;

/// f16 d, 32 signed bytes: `q · d`.
pub(crate) struct Q8_0;

impl Blocks for Q8_0 {
    const ELEMENTS: usize = 32;
    const BYTES: usize = 34;
    const PACKING: Packing = Packing { bits: Bits::Eight, table: None, zero: 128, scales: Scales::Half, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for (out, byte) in out.quants[..32].iter_mut().zip(&block[2..34]) {
            *out = byte ^ 0x80;
        }
    }
}

/// Unpacks 32 quants from 16 bytes.
#[inline(always)]
pub(crate) fn nibbles(bytes: &[u8], out: &mut Unpacked) {
    for (j, byte) in bytes[..16].iter().enumerate() {
        out.quants[j] = byte & 15;
        out.quants[j + 16] = byte >> 4;
    }
}

/// Adds bit `k` of 4 bytes as the fifth bit of quant `k`.
#[inline(always)]
fn fifth_bits(bytes: &[u8], out: &mut Unpacked) {
    for (quants, byte) in out.quants[..32].as_chunks_mut::<8>().0.iter_mut().zip(bytes) {
        for (bit, quant) in quants.iter_mut().enumerate() {
            *quant |= (byte >> bit & 1) << 4;
        }
    }
}

/// Writes nibbles, and the fifth bits if there is room for them before the nibbles.
#[inline(always)]
pub(super) fn write_quants(out: &mut [u8], quants: &[u8; 32]) {
    let (high, low) = out.split_at_mut(out.len() - 16);
    for (j, byte) in low.iter_mut().enumerate() {
        *byte = quants[j] & 15 | quants[j + 16] << 4;
    }
    for (byte, quants) in high.iter_mut().zip(quants.as_chunks::<8>().0) {
        let bits = u64::from_le_bytes(*quants) >> 4 & 0x0101_0101_0101_0101;
        // Moves bit 8 k to bit 56 + k.
        *byte = (bits.wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
    }
}
