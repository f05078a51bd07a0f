//! Formats of one or two bits with one f16 scale for 128 or 64 weights: Q1_0, Q2_0.

use half::f16;

use super::blocks::{Blocks, read_u16};
use super::layout::{Bits, Packing, Scales, Unpacked};

/// f16 d, 16 bytes of bits: `d` or `-d`.
pub(crate) struct Q1_0;

impl Blocks for Q1_0 {
    const ELEMENTS: usize = 128;
    const BYTES: usize = 18;
    const PACKING: Packing = Packing { bits: Bits::One, table: None, zero: 1, scales: Scales::Half, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for (quants, byte) in out.quants[..128].as_chunks_mut::<8>().0.iter_mut().zip(&block[2..18]) {
            for (bit, quant) in quants.iter_mut().enumerate() {
                *quant = (byte >> bit & 1) << 1;
            }
        }
    }
}

/// f16 d, 16 bytes of bit pairs: `(q - 1) · d`.
pub(crate) struct Q2_0;

impl Blocks for Q2_0 {
    const ELEMENTS: usize = 64;
    const BYTES: usize = 18;
    const PACKING: Packing = Packing { bits: Bits::Two, table: None, zero: 1, scales: Scales::Half, factor: 1.0 };

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for (quants, byte) in out.quants[..64].as_chunks_mut::<4>().0.iter_mut().zip(&block[2..18]) {
            *quants = [byte & 3, byte >> 2 & 3, byte >> 4 & 3, byte >> 6];
        }
    }
}

/// Quantizes rows to Q1_0: the mean magnitude, which has the smallest squared error, weighted by the importance of the columns.
#[inline(always)]
pub(crate) fn quantize_q1_0(values: &[f32], importance: Option<&[f32]>, out: &mut [u8]) {
    for (index, (values, out)) in values.as_chunks::<128>().0.iter().zip(out.as_chunks_mut::<18>().0).enumerate() {
        let d = match importance {
            None => values.iter().map(|value| value.abs()).sum::<f32>() / 128.0,
            Some(all) => {
                let weights = &all[128 * index % all.len()..][..128];
                let sum: f32 = values.iter().zip(weights).map(|(value, weight)| value.abs() * weight).sum();
                sum / weights.iter().sum::<f32>()
            }
        };
        out[..2].copy_from_slice(&f16::from_f32(d).to_le_bytes());
        for (byte, values) in out[2..].iter_mut().zip(values.as_chunks::<8>().0) {
            *byte = (0..8).fold(0, |bits, at| bits | u8::from(values[at] >= 0.0) << at);
        }
    }
}
