//! Formats with one f16 scale (and minimum) for 32 weights: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
//!
//! In the nibble formats, byte `j` of 16 holds weight `j` in its low bits and weight `j + 16` in its high bits.

use half::f16;

use super::blocks::{Blocks, read_u16};
use super::layout::{Bits, Packing, Scales, Unpacked};
use super::quantize::search::{extreme, inverse};

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
pub(super) fn write_quants(out: &mut [u8], quant: impl Fn(usize) -> u8) {
    let (high, low) = out.split_at_mut(out.len() - 16);
    for (j, byte) in low.iter_mut().enumerate() {
        *byte = quant(j) & 15 | quant(j + 16) << 4;
    }
    for (k, byte) in high.iter_mut().enumerate() {
        *byte = (0..8).fold(0, |bits, bit| bits | (quant(8 * k + bit) >> 4) << bit);
    }
}

/// Quantizes so that the value of largest magnitude becomes `-zero`.
#[inline(always)]
fn quantize_symmetric<const BYTES: usize>(zero: f32, values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let d = extreme(values) / -zero;
        let id = inverse(d);
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        write_quants(&mut out[2..], |k| ((values[k] * id + (zero + 0.5)) as u8).min(2 * zero as u8 - 1));
    }
}

/// Quantizes so that the smallest and largest values become 0 and `largest`.
#[inline(always)]
fn quantize_range<const BYTES: usize>(largest: f32, values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<BYTES>().0) {
        let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let min = values.iter().copied().fold(f32::INFINITY, f32::min);
        let d = (max - min) / largest;
        let id = inverse(d);
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        out[2..4].copy_from_slice(&f16::from_f32(min).to_le_bytes());
        write_quants(&mut out[4..], |k| (((values[k] - min) * id + 0.5) as u8).min(largest as u8));
    }
}

/// Quantizes to Q4_0: the value of largest magnitude becomes -8.
#[inline(always)]
pub(crate) fn quantize_q4_0(values: &[f32], out: &mut [u8]) {
    quantize_symmetric::<18>(8.0, values, out);
}

/// Quantizes to Q4_1: the range of values becomes 0 to 15.
#[inline(always)]
pub(crate) fn quantize_q4_1(values: &[f32], out: &mut [u8]) {
    quantize_range::<20>(15.0, values, out);
}

/// Quantizes to Q5_0: the value of largest magnitude becomes -16.
#[inline(always)]
pub(crate) fn quantize_q5_0(values: &[f32], out: &mut [u8]) {
    quantize_symmetric::<22>(16.0, values, out);
}

/// Quantizes to Q5_1: the range of values becomes 0 to 31.
#[inline(always)]
pub(crate) fn quantize_q5_1(values: &[f32], out: &mut [u8]) {
    quantize_range::<24>(31.0, values, out);
}

/// Quantizes to Q8_0: the largest magnitude becomes 127; halves are rounded away from zero.
#[inline(always)]
pub(crate) fn quantize_q8_0(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<34>().0) {
        let d = values.iter().fold(0.0, |found: f32, value| found.max(value.abs())) / 127.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (out, value) in out[2..].iter_mut().zip(values) {
            *out = (value * id).round() as i8 as u8;
        }
    }
}
