//! The description of a quantized format, and the dequantization of its blocks.

use std::marker::PhantomData;

use super::compression::Compression;
use super::layout::{Packing, Unpacked};
use crate::cpu::Isa;
use crate::math::{Kernel, Lanes, dispatch};

/// A quantized format: how one block is read.
pub(crate) trait Blocks {
    /// Weights in a block: 32 or 256.
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

/// [`dequantize_blocks`], compiled for an instruction set.
pub(crate) fn dequantize_blocks_on<B: Blocks>(isa: Isa, bytes: &[u8], out: &mut [f32]) {
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
    fn run<L: Lanes>(self, _set: L::Set) {
        dequantize_blocks::<B>(self.bytes, self.out);
    }
}

/// Dequantizes whole blocks, with the same rounding as the reference implementation: integer times scale, minus minimum.
#[inline(always)]
pub(crate) fn dequantize_blocks<B: Blocks>(bytes: &[u8], out: &mut [f32]) {
    let mut block = Unpacked::new();
    for (bytes, out) in bytes.chunks_exact(B::BYTES).zip(out.chunks_exact_mut(B::ELEMENTS)) {
        B::unpack(bytes, &mut block);
        for (part, (out, quants)) in out.chunks_exact_mut(16).zip(block.quants.chunks_exact(16)).enumerate() {
            let (scale, minimum) = block.scale(&B::PACKING, part);
            for (out, quant) in out.iter_mut().zip(quants) {
                let value = B::PACKING.table.map_or(*quant, |table| table[usize::from(*quant & 15)]);
                let product = (f32::from(value) - f32::from(B::PACKING.zero)) * scale;
                *out = if B::PACKING.scales.minimum() { product - minimum } else { product };
            }
        }
    }
}

/// The little-endian 16 bits at `at`.
#[inline]
pub(crate) fn read_u16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}
