//! Decompression of compressed weights for the kernels, a few blocks at a time, into a per-thread buffer.

use crate::cpu::Isa;
use crate::formats::{Decompress, Format, Layout};

/// Blocks of 32 columns that are decompressed at a time: at most 14 KB with 16 rows, which stays in the first-level cache.
/// A multiple of 8.
pub(super) const STEP: usize = 32;
/// How a matrix is decompressed.
pub(super) struct Decompression {
    isa: Isa,
    decompress: Decompress,
    /// Bytes of 32 columns of decompressed quants; 0 if quants are not compressed.
    pub(super) block_quants: usize,
    /// Bytes of 32 columns of decompressed scales, on average over 256.
    pub(super) block_scales: usize,
}

impl Decompression {
    /// The decompression for `format`; none if the format is not compressed.
    pub(super) fn new(isa: Isa, format: Format) -> Option<Self> {
        let info = format.info();
        let compression = info.compression?;
        let layout = Layout::new(info.packing?, None, 256)?;
        let block_quants = if compression.plain_quants() { 0 } else { layout.block_quants };
        Some(Self { isa, decompress: info.decompress, block_quants, block_scales: layout.block_scales })
    }

    /// Bytes of the quants and of the scales of `STEP` blocks.
    pub(super) fn step_bytes(&self) -> [usize; 2] {
        [STEP * self.block_quants, STEP * self.block_scales]
    }

    /// Decompresses `count` blocks from `block` on (multiples of 8) of a packed group.
    pub(super) fn run(
        &self,
        (packed, layout): (&[u8], Layout),
        (block, count): (usize, usize),
        quants: &mut [u8],
        scales: &mut [u8],
    ) {
        let (from_quants, from_scales) = packed.split_at(layout.quant_bytes);
        let from_quants = &from_quants[layout.block_quants * block..][..layout.block_quants * count];
        let from_scales = &from_scales[layout.block_scales * block..][..layout.block_scales * count];
        let quants = &mut quants[..self.block_quants * count];
        (self.decompress)(self.isa, from_quants, from_scales, quants, &mut scales[..self.block_scales * count]);
    }
}
