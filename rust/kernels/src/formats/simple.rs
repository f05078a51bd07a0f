//! Formats with one f16 scale for 32 weights: Q4_0, Q8_0.
//!
//! In the nibble formats byte `j` of 16 holds weight `j` in its low and weight `j + 16` in its high bits.

use half::f16;

use super::blocks::{Bits, Blocks, Packing, Scales, Unpacked, read_u16};

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

/// 32 quants from 16 bytes.
#[inline(always)]
pub(crate) fn nibbles(bytes: &[u8], out: &mut Unpacked) {
    for (j, byte) in bytes[..16].iter().enumerate() {
        out.quants[j] = byte & 15;
        out.quants[j + 16] = byte >> 4;
    }
}

/// The value of largest magnitude, the first one of several.
fn extreme(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |found: f32, value| if value.abs() > found.abs() { *value } else { found })
}

/// `1 / d`, or zero if all values of the block are zero.
fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

/// Q4_0: the value of largest magnitude becomes -8.
pub(crate) fn quantize_q4_0(values: &[f32], out: &mut [u8]) {
    for (values, out) in values.as_chunks::<32>().0.iter().zip(out.as_chunks_mut::<18>().0) {
        let d = extreme(values) / -8.0;
        let id = inverse(d);
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        let quant = |value: f32| ((value * id + 8.5) as u8).min(15);
        for j in 0..16 {
            out[2 + j] = quant(values[j]) | quant(values[j + 16]) << 4;
        }
    }
}

/// Q8_0: the largest magnitude becomes 127; halves are rounded away from zero.
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
