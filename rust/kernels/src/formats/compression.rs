//! The compressed layout: low-bit formats take about as much memory as in the file, and `decompress` restores the layout
//! that kernels read (`matmul::weights`), 16 rows × 256 columns at a time, in the first-level cache.
//!
//! For a unit of 256 columns of 16 rows:
//!
//! | quants | bytes | content |
//! |---|---|---|
//! | `Plain` | | as the kernels read them |
//! | `Ternary` | 832 | 13 byte vectors of five base-3 digits, see below |
//! | then, by plane | 0 | `None` |
//! | | 512 | `Bits`: for 32 columns a byte vector of third bits |
//! | | 16 | `Rows`: for 32 columns one third bit of each row |
//! | | 64 | `Octets`: for 32 columns and each of rows 0 to 7 four third bits, of 8 columns each; for row + 8 the high four |
//! | `Octets` | 512 | indices of 8 columns: for 32 columns byte `16 · (row / 4) + 4 · octet + row % 4` |
//! | | 64 | if the grid has 512 entries: the ninth bits of those bytes |
//! | | 512 | signs: for 32 columns a byte vector of third bits |
//! | `Quads` | 1024 | indices of 4 columns: for 32 columns byte `64 · (quad % 2) + 16 · (row / 4) + 4 · (quad / 2) + row % 4` |
//! | | 512 | signs: for 32 columns a byte vector of fourth bits |
//!
//! Byte vectors of third and fourth bits store the bits of group `g` of 4 columns in bit `g / 2 + 4 · (g % 2)`.
//!
//! The digits encode 16 byte vectors `V` of bit pairs, two for 32 columns. Four digits of vector `v` are the pairs of `V[v]`,
//! the fifth is pair `v % 4` of `V[13 + v / 4]`. Without third bits, the pairs of a `V` belong to its 4 groups of columns in
//! order, otherwise to groups 0, 2, 1, 3, so that the even and the odd pairs form nibbles.
//!
//! Scales follow all quants of a group: for each unit 16 f16 values, then with `Odd` a nibble `n` for each byte scale
//! `2 n + 1`, two parts in a byte vector, the first one in the low bits.

use super::grids::Grid;
use super::layout::{GROUP_ROWS, Packing, Scales, Unpacked};

/// Number of vectors of base-3 digits in a unit.
pub(super) const TERNARY_VECTORS: usize = 13;

/// How a format is compressed.
#[derive(Debug)]
pub struct Compression {
    /// The quants.
    pub(super) quants: CompressedQuants,
    /// The scales.
    pub(super) scales: CompressedScales,
}

/// Compressed quants; see above.
#[derive(Debug, Clone, Copy)]
pub(super) enum CompressedQuants {
    /// Not compressed.
    Plain,
    /// Base-3 digits and a third bit.
    Ternary(Plane),
    /// Indices of 8 columns, and signs.
    Octets(&'static Grid),
    /// Indices of 4 columns, and signs.
    Quads(&'static Grid),
}

/// How the third bits that supplement base-3 digits are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Plane {
    /// There are none.
    None,
    /// One for each weight.
    Bits,
    /// One for 32 columns.
    Rows,
    /// One for 8 columns.
    Octets,
}

/// Compressed scales; see above.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CompressedScales {
    /// All byte scales are 1.
    Ones,
    /// Byte scales are odd and below 32.
    Odd,
}

impl Compression {
    /// Whether only the scales are compressed; kernels then read the quants from memory.
    pub const fn plain_quants(&self) -> bool {
        matches!(self.quants, CompressedQuants::Plain)
    }

    /// Bytes of the quants of a unit, if they are compressed.
    pub(super) const fn quant_bytes(&self) -> Option<usize> {
        match self.quants {
            CompressedQuants::Plain => None,
            CompressedQuants::Ternary(plane) => Some(64 * TERNARY_VECTORS + plane.bytes()),
            CompressedQuants::Octets(grid) => Some(8 * 64 + if grid.ninth() { 64 } else { 0 } + 8 * 64),
            CompressedQuants::Quads(_) => Some(8 * 128 + 8 * 64),
        }
    }

    /// Bytes of the scales of a unit.
    pub(super) const fn scale_bytes(&self, scales: Scales) -> usize {
        match self.scales {
            CompressedScales::Ones => 2 * GROUP_ROWS,
            CompressedScales::Odd => 2 * GROUP_ROWS + parts(scales) * GROUP_ROWS / 2,
        }
    }
}

impl Plane {
    /// Bytes in a unit.
    pub(super) const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Bits => 8 * 64,
            Self::Rows => 8 * 2,
            Self::Octets => 8 * 8,
        }
    }
}

/// Number of byte scales for 256 columns of a row.
pub(super) const fn parts(scales: Scales) -> usize {
    if matches!(scales, Scales::Signed32) { 8 } else { 16 }
}

/// Writes a unit: 16 rows, whose quants are in the order of the weights.
#[inline(always)]
pub(super) fn compress(
    compression: &Compression,
    packing: &Packing,
    blocks: &[Unpacked; GROUP_ROWS],
    quants: &mut [u8],
    scales: &mut [u8],
) {
    match compression.quants {
        CompressedQuants::Plain => {}
        CompressedQuants::Ternary(plane) => {
            let (digits, bits) = quants.split_at_mut(64 * TERNARY_VECTORS);
            compress_digits(plane, blocks, digits);
            compress_plane(plane, blocks, bits);
        }
        CompressedQuants::Octets(grid) => compress_octets(grid, blocks, quants),
        CompressedQuants::Quads(_) => compress_quads(blocks, quants),
    }
    let (heads, nibbles) = scales.split_at_mut(2 * GROUP_ROWS);
    for (row, block) in blocks.iter().enumerate() {
        heads[2 * row..][..2].copy_from_slice(&block.scale.to_le_bytes());
        if compression.scales == CompressedScales::Odd {
            for pair in 0..parts(packing.scales) / 2 {
                nibbles[GROUP_ROWS * pair + row] =
                    block.scales[2 * pair] >> 1 & 15 | (block.scales[2 * pair + 1] >> 1 & 15) << 4;
            }
        }
    }
}

/// Writes base-3 digits. The digit that multiplying by 3 extracts first is the lowest bit pair; the fifth one comes last.
#[inline(always)]
fn compress_digits(plane: Plane, blocks: &[Unpacked; GROUP_ROWS], out: &mut [u8]) {
    let groups = if plane == Plane::None { [0, 1, 2, 3] } else { [0, 2, 1, 3] };
    for (vector, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for (row, block) in blocks.iter().enumerate() {
            for column in 0..4 {
                let digit =
                    |vector: usize, pair: usize| u32::from(block.quants[16 * vector + 4 * groups[pair] + column] & 3);
                let four = (0..4).fold(0, |number, pair| 3 * number + digit(vector, pair));
                let last = if vector < 12 { digit(TERNARY_VECTORS + vector / 4, vector % 4) } else { 0 };
                // Rounded up, so that multiplying by 3 extracts the digits exactly.
                out[4 * row + column] = ((3 * four + last) * 256).div_ceil(243) as u8;
            }
        }
    }
}

/// Writes third bits.
#[inline(always)]
fn compress_plane(plane: Plane, blocks: &[Unpacked; GROUP_ROWS], out: &mut [u8]) {
    let third = |row: usize, column: usize| blocks[row].quants[column] >> 2 & 1;
    match plane {
        Plane::None => {}
        Plane::Bits => compress_bits(blocks, 2, out),
        Plane::Rows => {
            for (block, out) in out.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                *out = (0..GROUP_ROWS)
                    .fold(0_u16, |bits, row| bits | u16::from(third(row, 32 * block)) << row)
                    .to_le_bytes();
            }
        }
        Plane::Octets => {
            for (block, out) in out.as_chunks_mut::<8>().0.iter_mut().enumerate() {
                for (row, out) in out.iter_mut().enumerate() {
                    *out = (0..8).fold(0, |bits, bit| bits | third(row + bit / 4 * 8, 32 * block + bit % 4 * 8) << bit);
                }
            }
        }
    }
}

/// Writes bit `shift` of all quants.
#[inline(always)]
fn compress_bits(blocks: &[Unpacked; GROUP_ROWS], shift: u32, out: &mut [u8]) {
    for (block, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for (row, unpacked) in blocks.iter().enumerate() {
            for column in 0..4 {
                out[4 * row + column] = (0..8).fold(0, |bits, group| {
                    let bit = unpacked.quants[32 * block + 4 * group + column] >> shift & 1;
                    bits | bit << (group / 2 + 4 * (group % 2))
                });
            }
        }
    }
}

/// Writes indices of 8 columns, ninth bits, third bits.
#[inline(always)]
fn compress_octets(grid: &Grid, blocks: &[Unpacked; GROUP_ROWS], out: &mut [u8]) {
    let (indices, rest) = out.split_at_mut(8 * 64);
    let (ninth, bits) = rest.split_at_mut(if grid.ninth() { 64 } else { 0 });
    ninth.fill(0);
    for (block, indices) in indices.as_chunks_mut::<64>().0.iter_mut().enumerate() {
        for (row, unpacked) in blocks.iter().enumerate() {
            for octet in 0..4 {
                let index = unpacked.indices[4 * block + octet];
                let at = 16 * (row / 4) + 4 * octet + row % 4;
                indices[at] = index as u8;
                if grid.ninth() {
                    ninth[8 * block + at / 8] |= ((index >> 8) as u8) << (at % 8);
                }
            }
        }
    }
    compress_bits(blocks, 2, bits);
}

/// Writes indices of 4 columns, fourth bits.
#[inline(always)]
fn compress_quads(blocks: &[Unpacked; GROUP_ROWS], out: &mut [u8]) {
    let (indices, bits) = out.split_at_mut(8 * 128);
    for (block, indices) in indices.as_chunks_mut::<128>().0.iter_mut().enumerate() {
        for (row, unpacked) in blocks.iter().enumerate() {
            for quad in 0..8 {
                let at = 64 * (quad % 2) + 16 * (row / 4) + 4 * (quad / 2) + row % 4;
                indices[at] = unpacked.indices[8 * block + quad] as u8;
            }
        }
    }
    compress_bits(blocks, 3, bits);
}
