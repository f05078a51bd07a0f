//! What unfolding has in common on all instruction sets: its arguments, and the scales.

use std::marker::PhantomData;

use super::folding::{FoldedScales, Folding, parts};
use super::layout::{Bits, Packing};

/// The arguments of an unfolding. They are taken apart before the work begins: as arguments of a function, the compiler knows that
/// the slices do not overlap, without which the scales take half as long again.
pub(super) struct Units<'a, B> {
    /// Folded quants.
    pub(super) quants: &'a [u8],
    /// Folded scales.
    pub(super) scales: &'a [u8],
    /// Room for the quants, unless they are plain.
    pub(super) to_quants: &'a mut [u8],
    /// Room for the scales.
    pub(super) to_scales: &'a mut [u8],
    format: PhantomData<B>,
}

impl<'a, B> Units<'a, B> {
    /// Whole units, with room for what they become.
    pub(super) fn new(quants: &'a [u8], scales: &'a [u8], to_quants: &'a mut [u8], to_scales: &'a mut [u8]) -> Self {
        Self { quants, scales, to_quants, to_scales, format: PhantomData }
    }
}

/// Bytes of unfolded quants of a unit.
pub(super) const fn unit_quants(bits: Bits) -> usize {
    8 * bits.block_bytes()
}

/// f16 scales and bytes.
#[inline(always)]
pub(super) fn unfold_scales(folding: &Folding, packing: &Packing, scales: &[u8], out: &mut [u8]) {
    let bytes = folding.scale_bytes(packing.scales);
    for (scales, out) in scales.chunks_exact(bytes).zip(out.chunks_exact_mut(32 + parts(packing.scales) * 16)) {
        let (heads, parts) = out.split_at_mut(32);
        heads.copy_from_slice(&scales[..32]);
        if folding.scales == FoldedScales::Ones {
            parts.fill(1);
            continue;
        }
        for (nibbles, out) in scales[32..].as_chunks::<16>().0.iter().zip(parts.as_chunks_mut::<32>().0) {
            let (first, second) = out.split_at_mut(16);
            for ((byte, first), second) in nibbles.iter().zip(first).zip(second) {
                *first = byte << 1 & 0x1e | 1;
                *second = byte >> 3 & 0x1e | 1;
            }
        }
    }
}
