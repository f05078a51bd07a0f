//! The description of a quantized format, and the dequantization of its blocks.

use std::marker::PhantomData;

use super::compression::Compression;
use super::layout::{Packing, Unpacked};
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch};

/// A quantized format: how one block is read.
pub trait Blocks {
    /// Weights in a block: 32, 64, 128 or 256.
    const ELEMENTS: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Layout in the kernels.
    const PACKING: Packing;
    /// How the layout is compressed in memory, if it is. Only blocks of 256 with `Scales::Signed32` or `Scales::Signed16`.
    const FOLDING: Option<Compression> = None;
    /// Reads one block of `BYTES` bytes.
    fn unpack(block: &[u8], out: &mut Unpacked);
}

/// Dequantizes whole blocks, with the same rounding as the reference implementation: integer times scale, minus minimum.
// A caller among others would share the dispatch, whose slices the compiler then knows less of.
#[inline(never)]
pub(crate) fn dequantize_blocks<B: Blocks>(isa: Isa, bytes: &[u8], out: &mut [f32]) {
    dispatch(isa, Dequantize::<B> { bytes, out, format: PhantomData });
}

struct Dequantize<'a, B> {
    bytes: &'a [u8],
    out: &'a mut [f32],
    format: PhantomData<B>,
}

impl<B: Blocks> Kernel for Dequantize<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let packing = &B::PACKING;
        let mut block = Unpacked::new();
        let (mut scales, mut minimums) = ([0.0; LANES], [0.0; LANES]);
        for (bytes, out) in self.bytes.chunks_exact(B::BYTES).zip(self.out.chunks_exact_mut(B::ELEMENTS)) {
            B::unpack(bytes, &mut block);
            let parts = out.as_chunks_mut::<LANES>().0.iter_mut().zip(block.quants.as_chunks::<LANES>().0);
            for part in 0..B::ELEMENTS / LANES {
                (scales[part], minimums[part]) = block.scale(packing, part);
            }
            for ((out, quants), (scale, minimum)) in parts.zip(scales.iter().zip(&minimums)) {
                let values = quants.map(|quant| packing.table.map_or(quant, |table| table[usize::from(quant & 15)]));
                // Of every format, the difference is -128 to 127.
                let values = L::load_signed_bytes(set, &values.map(|value| value.wrapping_sub(packing.zero)));
                let values = values.mul(L::splat(set, *scale));
                // Two roundings, as in the reference implementation.
                let values = if packing.scales.minimum() { values.sub(L::splat(set, *minimum)) } else { values };
                values.store(out);
            }
        }
    }
}

/// The little-endian 16 bits at `at`.
#[inline]
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
