//! The part of decompression that all instruction sets share: the scales.

use super::compression::{CompressedScales, Compression, parts};
use super::layout::{Bits, Packing};

/// Size of a unit's decompressed quants in bytes.
pub(super) const fn unit_quants(bits: Bits) -> usize {
    8 * bits.block_bytes()
}

/// Decompresses the f16 scales and the byte scales.
#[inline(always)]
pub(super) fn decompress_scales(compression: &Compression, packing: &Packing, scales: &[u8], out: &mut [u8]) {
    let bytes = compression.scale_bytes(packing.scales);
    for (scales, out) in scales.chunks_exact(bytes).zip(out.chunks_exact_mut(32 + parts(packing.scales) * 16)) {
        let (heads, parts) = out.split_at_mut(32);
        heads.copy_from_slice(&scales[..32]);
        if compression.scales == CompressedScales::Ones {
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
