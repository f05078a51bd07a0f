//! Packing: writes the packed layout, 16 rows side by side, as described by the table in `matmul::weights`.

use super::blocks::Blocks;
use super::compression::{Compression, compress};
use super::layout::{Bits, GROUP_ROWS, Packing, Scales, Unpacked};
use crate::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::sets::{Avx2, InstructionSet};

/// Sizes of the packed layout of one group of 16 rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the quants of 32 columns, on average over 256.
    pub block_quants: usize,
    /// Bytes of the scales of 32 columns, on average over 256.
    pub block_scales: usize,
    /// Bytes of all quants; the scales follow.
    pub quant_bytes: usize,
    /// Bytes of quants and scales, a multiple of 64.
    pub group_bytes: usize,
}

impl Layout {
    /// The layout of rows of `columns` weights (whole blocks); none if its size overflows.
    pub fn new(packing: &Packing, compression: Option<&Compression>, columns: usize) -> Option<Self> {
        let compressed = compression.and_then(Compression::quant_bytes).map(|bytes| bytes / 8);
        let block_quants = compressed.unwrap_or(packing.bits.block_bytes());
        let block_scales = wide_bytes(packing.scales, compression) / 8;
        let quant_bytes = (columns / 32).checked_mul(block_quants)?;
        let scale_bytes = (columns / 32).checked_mul(block_scales)?;
        let group_bytes = quant_bytes.checked_add(scale_bytes)?.checked_next_multiple_of(64)?;
        Some(Self { block_quants, block_scales, quant_bytes, group_bytes })
    }
}

/// Size of the scales of 256 columns of 16 rows in bytes.
const fn wide_bytes(scales: Scales, compression: Option<&Compression>) -> usize {
    if let Some(compression) = compression {
        return compression.scale_bytes(scales);
    }
    match scales {
        Scales::Signed32 => 32 + 8 * GROUP_ROWS,
        Scales::Signed16 => 32 + 16 * GROUP_ROWS,
        Scales::Minimum32 | Scales::Minimum16 => 64 + 16 * GROUP_ROWS,
        Scales::Half | Scales::Brain => 8 * 32,
        Scales::HalfMinimum | Scales::Half16 => 8 * 64,
    }
}

/// `pack_group`, compiled for the instruction set.
pub(crate) fn pack<B: Blocks>(isa: Isa, source: &[u8], rows: usize, layout: Layout, out: &mut [u8]) {
    #[cfg(target_arch = "x86_64")]
    if Avx2::of(isa).is_some() {
        // SAFETY: a token exists only where the processor has AVX2.
        return unsafe { pack_avx2::<B>(source, rows, layout, out) };
    }
    let _ = isa;
    pack_group::<B>(source, rows, layout, out);
}

/// `pack_group` with wide vectors; see `decompress_avx2` for why this does not use `InstructionSet::call`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn pack_avx2<B: Blocks>(source: &[u8], rows: usize, layout: Layout, out: &mut [u8]) {
    #[target_feature(enable = "avx2")]
    fn write(target: &Target, blocks: &[Unpacked; GROUP_ROWS], quants: &mut [u8], scales: &mut [u8]) {
        write_blocks(target, blocks, quants, scales);
    }
    pack_with::<B>(source, rows, layout, out, |target, blocks, quants, scales| write(target, blocks, quants, scales));
}

/// Packs a group: `rows` (1 to 16) rows of whole blocks, one after the other in `source`, into `group_bytes` at `out`. Missing
/// rows become zeros.
pub fn pack_group<B: Blocks>(source: &[u8], rows: usize, layout: Layout, out: &mut [u8]) {
    fn write(target: &Target, blocks: &[Unpacked; GROUP_ROWS], quants: &mut [u8], scales: &mut [u8]) {
        write_blocks(target, blocks, quants, scales);
    }
    pack_with::<B>(source, rows, layout, out, write);
}

/// What the blocks of a format become.
struct Target {
    packing: &'static Packing,
    compression: Option<&'static Compression>,
}

/// Reads the blocks of 16 rows at a time, and has them written by a function that all formats share.
#[inline(always)]
fn pack_with<B: Blocks>(
    source: &[u8],
    rows: usize,
    layout: Layout,
    out: &mut [u8],
    write: impl Fn(&Target, &[Unpacked; GROUP_ROWS], &mut [u8], &mut [u8]),
) {
    if source.is_empty() {
        return;
    }
    let target = Target { packing: &B::PACKING, compression: const { &B::FOLDING }.as_ref() };
    let row_bytes = source.len() / rows;
    let (quants, scales) = out[..layout.group_bytes].split_at_mut(layout.quant_bytes);
    let mut blocks = [const { Unpacked::new() }; GROUP_ROWS];
    let bytes = wide_bytes(B::PACKING.scales, B::FOLDING.as_ref()) / (256 / B::ELEMENTS);
    let step = quants.len() / (row_bytes / B::BYTES);
    for (index, quants) in quants.chunks_exact_mut(step).enumerate() {
        for (row, block) in blocks[..rows].iter_mut().enumerate() {
            B::unpack(&source[row * row_bytes + index * B::BYTES..][..B::BYTES], block);
        }
        write(&target, &blocks, quants, &mut scales[index * bytes..][..bytes]);
    }
}

/// Writes one block of the file of each of 16 rows.
#[inline(always)]
fn write_blocks(target: &Target, blocks: &[Unpacked; GROUP_ROWS], quants: &mut [u8], scales: &mut [u8]) {
    if let Some(compression) = target.compression {
        compress(compression, target.packing, blocks, quants, scales);
        if !compression.plain_quants() {
            return;
        }
    } else {
        pack_scales(target.packing.scales, blocks, scales);
    }
    // An arm for each size, so that the compiler knows it in the loop.
    macro_rules! quants {
        ($($bits:ident)*) => {
            match target.packing.bits {
                $(Bits::$bits => {
                    for (part, quants) in quants.chunks_exact_mut(Bits::$bits.block_bytes()).enumerate() {
                        pack_quants(Bits::$bits, &interleave(blocks, 32 * part), quants);
                    }
                })*
            }
        };
    }
    quants!(One Two Three Four Five Six Eight);
}

/// 4 columns of 16 rows.
type Group = [u32; GROUP_ROWS];

/// 32 columns from `first` on: 8 groups of 4 columns, rows side by side.
#[inline(always)]
fn interleave(blocks: &[Unpacked; GROUP_ROWS], first: usize) -> [Group; 8] {
    let mut groups = [[0; GROUP_ROWS]; 8];
    for (row, block) in blocks.iter().enumerate() {
        for (group, quants) in groups.iter_mut().zip(block.quants[first..first + 32].as_chunks::<4>().0) {
            group[row] = u32::from_le_bytes(*quants);
        }
    }
    groups
}

/// Writes vectors of 64 bytes.
#[inline(always)]
fn write(out: &mut [u8], vector: usize, of: impl Fn(usize) -> u32) {
    for (row, out) in out[64 * vector..][..64].as_chunks_mut::<4>().0.iter_mut().enumerate() {
        *out = of(row).to_le_bytes();
    }
}

/// `byte` repeated in all four bytes.
const fn every(byte: u8) -> u32 {
    u32::from_le_bytes([byte; 4])
}

/// Packs 32 columns.
#[inline(always)]
fn pack_quants(bits: Bits, groups: &[Group; 8], out: &mut [u8]) {
    let pairs = |low: u32, shift: u32, out: &mut [u8]| {
        for i in 0..2 {
            write(out, i, |row| {
                let quad = |j: usize| (groups[4 * i + j][row] >> shift & every(low as u8)) << (2 * j);
                quad(0) | quad(1) | quad(2) | quad(3)
            });
        }
    };
    let nibbles = |out: &mut [u8]| {
        for i in 0..4 {
            write(out, i, |row| groups[2 * i][row] & every(15) | (groups[2 * i + 1][row] & every(15)) << 4);
        }
    };
    let plane = |shift: u32, out: &mut [u8]| {
        write(out, 0, |row| (0..8).fold(0, |bits, g| bits | (groups[g][row] >> shift & every(1)) << g));
    };
    match bits {
        Bits::One => plane(1, out),
        Bits::Two => pairs(3, 0, out),
        Bits::Three => {
            pairs(3, 0, out);
            plane(2, &mut out[128..]);
        }
        Bits::Four => nibbles(out),
        Bits::Five => {
            nibbles(out);
            plane(4, &mut out[256..]);
        }
        Bits::Six => {
            nibbles(out);
            pairs(3, 4, &mut out[256..]);
        }
        Bits::Eight => (0..8).for_each(|g| write(out, g, |row| groups[g][row])),
    }
}

/// Packs the scales of one block of the file.
#[inline(always)]
fn pack_scales(kind: Scales, blocks: &[Unpacked; GROUP_ROWS], out: &mut [u8]) {
    if matches!(kind, Scales::Half | Scales::Half16) {
        // A scale of more than 32 weights is repeated.
        for (index, vector) in out.as_chunks_mut::<{ 2 * GROUP_ROWS }>().0.iter_mut().enumerate() {
            for (out, block) in vector.as_chunks_mut::<2>().0.iter_mut().zip(blocks) {
                *out = if kind == Scales::Half { block.scale } else { block.halves[index] }.to_le_bytes();
            }
        }
        return;
    }
    let (heads, parts) = out.split_at_mut(if kind.minimum() { 64 } else { 32 });
    for (row, block) in blocks.iter().enumerate() {
        heads[2 * row..][..2].copy_from_slice(&block.scale.to_le_bytes());
        if kind.minimum() {
            heads[32 + 2 * row..][..2].copy_from_slice(&block.minimum.to_le_bytes());
        }
    }
    let mut vector = |index: usize, of: &dyn Fn(&Unpacked) -> u8| {
        for (out, block) in parts[GROUP_ROWS * index..][..GROUP_ROWS].iter_mut().zip(blocks) {
            *out = of(block);
        }
    };
    match kind {
        Scales::Half | Scales::Half16 | Scales::Brain | Scales::HalfMinimum => {}
        Scales::Signed32 => (0..8).for_each(|part| vector(part, &|block| block.scales[part])),
        Scales::Signed16 | Scales::Minimum16 => (0..16).for_each(|part| vector(part, &|block| block.scales[part])),
        Scales::Minimum32 => (0..8).for_each(|part| {
            vector(2 * part, &|block| block.scales[part]);
            vector(2 * part + 1, &|block| block.minimums[part]);
        }),
    }
}
