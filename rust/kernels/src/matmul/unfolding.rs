//! Folded weights on their way to the kernels: some blocks at a time are unfolded into a buffer of the thread.

use crate::cpu::Isa;
use crate::formats::{Format, Layout, Unfold};

/// Blocks of 32 columns that are unfolded at a time; with 16 rows at most 14 KB, which stays in the first-level cache. A
/// multiple of 8.
pub(super) const STEP: usize = 32;
/// How a matrix is unfolded.
pub(super) struct Unfolding {
    isa: Isa,
    unfold: Unfold,
    /// Bytes of 32 columns of unfolded quants; 0 if they are not folded.
    pub(super) block_quants: usize,
    /// Bytes of 32 columns of unfolded scales, on average over 256.
    pub(super) block_scales: usize,
}

impl Unfolding {
    /// None for formats that are not folded.
    pub(super) fn new(isa: Isa, format: Format) -> Option<Self> {
        let info = format.info();
        let folding = info.folding?;
        let layout = Layout::new(info.packing?, None, 256)?;
        let block_quants = if folding.plain_quants() { 0 } else { layout.block_quants };
        Some(Self { isa, unfold: info.unfold, block_quants, block_scales: layout.block_scales })
    }

    /// Bytes of the quants and of the scales of `STEP` blocks.
    pub(super) fn step_bytes(&self) -> [usize; 2] {
        [STEP * self.block_quants, STEP * self.block_scales]
    }

    /// Unfolds `count` blocks from `block` on (multiples of 8) of a packed group.
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
        (self.unfold)(self.isa, from_quants, from_scales, quants, &mut scales[..self.block_scales * count]);
    }
}
