//! The IQ formats with grids: an index chooses 4 or 8 small magnitudes at once; signs are stored separately.
//!
//! In the layout that kernels read, magnitude and sign of a weight become one index into a table of 8 or 16 values; in memory
//! that layout is compressed.

use super::blocks::{Blocks, read_u16};
use super::compression::{CompressedQuants, CompressedScales, Compression, Plane};
use super::grids::{GRID_IQ2_XS, GRID_IQ2_XXS, GRID_IQ3_XXS, IQ1, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, entry};
use super::layout::{Bits, Packing, Scales, Unpacked};

/// Magnitudes 8, 25, 43 plus 43, then 43 minus them.
static IQ2_VALUES: [u8; 16] = [51, 68, 86, 43, 35, 18, 0, 43, 51, 68, 86, 43, 35, 18, 0, 43];
/// Magnitudes 4, 12, 20, 28, 36, 44, 52, 62 plus 62, then 62 minus them.
static IQ3_XXS_VALUES: [u8; 16] = [66, 74, 82, 90, 98, 106, 114, 124, 58, 50, 42, 34, 26, 18, 10, 0];
/// Magnitudes 1, 3, ..., 15 plus 15, then 15 minus them.
static IQ3_S_VALUES: [u8; 16] = [16, 18, 20, 22, 24, 26, 28, 30, 14, 12, 10, 8, 6, 4, 2, 0];
/// Eight times (-1, 0, 1 plus an eighth), then minus an eighth; all plus 9.
static IQ1_VALUES: [u8; 16] = [2, 10, 18, 9, 0, 8, 16, 9, 2, 10, 18, 9, 0, 8, 16, 9];

/// The eight signs of a 7-bit index: the eighth makes the number of minus signs even.
#[inline(always)]
fn signs(index: u32) -> u8 {
    let seven = (index & 127) as u8;
    seven | ((seven.count_ones() as u8 & 1) << 7)
}

/// Eight quants of 3 bits: a magnitude of 2 bits, then its sign. (The fourth bit does not matter to the table.)
#[inline(always)]
fn eight(out: &mut [u8], entry: u16, signs: u8) {
    for (j, out) in out[..8].iter_mut().enumerate() {
        *out = (entry >> (2 * j)) as u8 & 3 | (signs >> j & 1) << 2;
    }
}

/// Four quants of 4 bits: a magnitude of 3 bits, then its sign.
#[inline(always)]
fn four(out: &mut [u8], entry: u16, signs: u8) {
    for (j, out) in out[..4].iter_mut().enumerate() {
        *out = (entry >> (4 * j)) as u8 & 7 | (signs >> j & 1) << 3;
    }
}

/// The little-endian 32 bits at `at`.
#[inline(always)]
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from(read_u16(bytes, at)) | u32::from(read_u16(bytes, at + 2)) << 16
}

/// `d · (1/2 + scale) / 4` becomes `d / 8 · (2 scale + 1)`.
const fn iq2(scales: Scales) -> Packing {
    Packing { bits: Bits::Four, table: Some(&IQ2_VALUES), zero: 43, scales, factor: 0.125 }
}

/// Compressed quants with odd scales below 32.
const fn compression(quants: CompressedQuants) -> Compression {
    Compression { quants, scales: CompressedScales::Odd }
}

/// f16 d; for every 32 weights 4 index bytes, then four 7-bit signs and a 4-bit scale.
pub struct Iq2Xxs;

impl Blocks for Iq2Xxs {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 66;
    const PACKING: Packing = iq2(Scales::Signed32);
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Octets(&GRID_IQ2_XXS)));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for part in 0..8 {
            let bits = read_u32(block, 2 + 8 * part + 4);
            out.scales[part] = 2 * (bits >> 28) as u8 + 1;
            for l in 0..4 {
                let index = usize::from(block[2 + 8 * part + l]);
                out.indices[4 * part + l] = index as u16;
                eight(&mut out.quants[32 * part + 8 * l..], entry(IQ2_XXS, index), signs(bits >> (7 * l)));
            }
        }
    }
}

/// f16 d; 16 bits for every 8 weights: a 9-bit index, 7-bit signs; 4-bit scales for 16 weights.
pub struct Iq2Xs;

impl Blocks for Iq2Xs {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 74;
    const PACKING: Packing = iq2(Scales::Signed16);
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Octets(&GRID_IQ2_XS)));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for group in 0..32 {
            let word = read_u16(block, 2 + 2 * group);
            out.indices[group] = word & 511;
            let grid = entry(IQ2_XS, usize::from(word & 511));
            eight(&mut out.quants[8 * group..], grid, signs(u32::from(word >> 9)));
        }
        nibble_scales(&block[66..74], out);
    }
}

/// f16 d; 32 low index bytes, 32 bytes of signs, 8 bytes of high index bits; 4-bit scales for 16 weights.
pub struct Iq2S;

impl Blocks for Iq2S {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 82;
    const PACKING: Packing = iq2(Scales::Signed16);
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Ternary(Plane::Bits)));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for group in 0..32 {
            let high = block[66 + group / 4] >> (2 * (group % 4)) & 3;
            let index = usize::from(block[2 + group]) | usize::from(high) << 8;
            eight(&mut out.quants[8 * group..], entry(IQ2_S, index), block[34 + group]);
        }
        nibble_scales(&block[74..82], out);
    }
}

/// Sixteen odd scales from nibbles, low bits first.
#[inline(always)]
fn nibble_scales(bytes: &[u8], out: &mut Unpacked) {
    for (scales, byte) in out.scales.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *scales = [2 * (byte & 15) + 1, 2 * (byte >> 4) + 1];
    }
}

/// f16 d, 64 index bytes; for every 32 weights four 7-bit signs and a 4-bit scale: `d / 4 · (2 scale + 1)`.
pub struct Iq3Xxs;

impl Blocks for Iq3Xxs {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 98;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: Some(&IQ3_XXS_VALUES), zero: 62, scales: Scales::Signed32, factor: 0.25 };
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Quads(&GRID_IQ3_XXS)));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for part in 0..8 {
            let bits = read_u32(block, 66 + 4 * part);
            out.scales[part] = 2 * (bits >> 28) as u8 + 1;
            for k in 0..8 {
                let index = usize::from(block[2 + 8 * part + k]);
                out.indices[8 * part + k] = index as u16;
                let grid = entry(IQ3_XXS, index);
                let signs = signs(bits >> (7 * (k / 2))) >> (4 * (k % 2));
                four(&mut out.quants[32 * part + 4 * k..], grid, signs);
            }
        }
    }
}

/// f16 d, 64 low index bytes, 8 bytes of ninth index bits, 32 bytes of signs, 4-bit scales: `d · (2 scale + 1)`.
pub struct Iq3S;

impl Blocks for Iq3S {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 110;
    const PACKING: Packing =
        Packing { bits: Bits::Four, table: Some(&IQ3_S_VALUES), zero: 15, scales: Scales::Signed32, factor: 1.0 };
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Plain));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for part in 0..8 {
            out.scales[part] = 2 * (block[106 + part / 2] >> (4 * (part % 2)) & 15) + 1;
            for k in 0..8 {
                let high = block[66 + part] >> k & 1;
                let index = usize::from(block[2 + 8 * part + k]) | usize::from(high) << 8;
                let signs = block[74 + 4 * part + k / 2] >> (4 * (k % 2));
                four(&mut out.quants[32 * part + 4 * k..], entry(IQ3_S, index), signs);
            }
        }
    }
}

/// `d · (2 scale + 1) · (value ± 1/8)` becomes `d / 8 · (2 scale + 1) · (8 value ± 1)`.
const fn iq1(scales: Scales) -> Packing {
    Packing { bits: Bits::Four, table: Some(&IQ1_VALUES), zero: 9, scales, factor: 0.125 }
}

/// f16 d, 32 low index bytes; 16 bits for every 32 weights: four times 3 high index bits, a 3-bit scale, a sign.
pub struct Iq1S;

impl Blocks for Iq1S {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 50;
    const PACKING: Packing = iq1(Scales::Signed32);
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Ternary(Plane::Rows)));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        out.scale = read_u16(block, 0);
        for part in 0..8 {
            let word = read_u16(block, 34 + 2 * part);
            out.scales[part] = 2 * (word >> 12 & 7) as u8 + 1;
            let minus = if word & 0x8000 == 0 { 0 } else { 0xff };
            for l in 0..4 {
                let index = usize::from(block[2 + 4 * part + l]) | usize::from(word >> (3 * l) & 7) << 8;
                eight(&mut out.quants[32 * part + 8 * l..], entry(IQ1, index), minus);
            }
        }
    }
}

/// 32 low index bytes, 16 bytes of high index bits and signs, four words of 3-bit scales and a quarter of the f16 d each.
pub struct Iq1M;

impl Blocks for Iq1M {
    const ELEMENTS: usize = 256;
    const BYTES: usize = 56;
    const PACKING: Packing = iq1(Scales::Signed16);
    const FOLDING: Option<Compression> = Some(compression(CompressedQuants::Ternary(Plane::Octets)));

    #[inline(always)]
    fn unpack(block: &[u8], out: &mut Unpacked) {
        let words = [48, 50, 52, 54].map(|at| read_u16(block, at));
        out.scale = words[0] >> 12 | words[1] >> 8 & 0xf0 | words[2] >> 4 & 0xf00 | words[3] & 0xf000;
        for (part, scale) in out.scales.iter_mut().enumerate() {
            *scale = 2 * (words[part / 4] >> (3 * (part % 4)) & 7) as u8 + 1;
        }
        for group in 0..32 {
            let bits = block[32 + group / 2] >> (4 * (group % 2));
            let index = usize::from(block[group]) | usize::from(bits & 7) << 8;
            eight(&mut out.quants[8 * group..], entry(IQ1, index), if bits & 8 == 0 { 0 } else { 0xff });
        }
    }
}
