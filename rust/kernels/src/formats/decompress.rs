//! Decompression: restores the layout that kernels read from the compressed one; see `compression`. This is portable code;
//! `decompress_avx512` does the same faster.

use super::blocks::Blocks;
use super::compression::{CompressedQuants, Plane, TERNARY_VECTORS};
use super::decompress_scales::{decompress_scales, unit_quants};
use super::grids::Grid;
use crate::cpu::Isa;
#[cfg(target_arch = "x86_64")]
use crate::cpu::sets::{Avx2, Avx512Vbmi, InstructionSet};

/// A function that decompresses whole units. Arguments: quants, scales, destination of the quants (unused if they are plain),
/// destination of the scales.
pub(crate) type Decompress = fn(Isa, &[u8], &[u8], &mut [u8], &mut [u8]);

/// Decompresses with the fastest code for the instruction set.
pub(crate) fn decompress<B: Blocks>(
    isa: Isa,
    quants: &[u8],
    scales: &[u8],
    to_quants: &mut [u8],
    to_scales: &mut [u8],
) {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(set) = Avx512Vbmi::of(isa) {
            return super::decompress_avx512::decompress::<B>(set, quants, scales, to_quants, to_scales);
        }
        if Avx2::of(isa).is_some() {
            // SAFETY: a token exists only where the processor has AVX2.
            return unsafe { decompress_avx2::<B>(quants, scales, to_quants, to_scales) };
        }
    }
    let _ = isa;
    decompress_units::<B>(quants, scales, to_quants, to_scales);
}

/// `decompress_units` with wide vectors. Not through `InstructionSet::call`: slices are known not to overlap as function
/// arguments, but not as fields of a struct, where the compiler would not vectorize.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn decompress_avx2<B: Blocks>(quants: &[u8], scales: &[u8], to_quants: &mut [u8], to_scales: &mut [u8]) {
    decompress_units::<B>(quants, scales, to_quants, to_scales);
}

/// Decompresses whole units.
#[inline(always)]
fn decompress_units<B: Blocks>(quants: &[u8], scales: &[u8], to_quants: &mut [u8], to_scales: &mut [u8]) {
    let Some(compression) = &B::FOLDING else { return };
    if let Some(bytes) = compression.quant_bytes() {
        for (quants, out) in quants.chunks_exact(bytes).zip(to_quants.chunks_exact_mut(unit_quants(B::PACKING.bits))) {
            match compression.quants {
                CompressedQuants::Plain => {}
                CompressedQuants::Ternary(plane) => decompress_ternary(plane, quants, out),
                CompressedQuants::Octets(grid) => decompress_octets(grid, quants, out),
                CompressedQuants::Quads(grid) => decompress_quads(grid, quants, out),
            }
        }
    }
    decompress_scales(compression, &B::PACKING, scales, to_scales);
}

/// The mean, rounded up: one instruction on most processors.
#[inline(always)]
fn mean(a: u8, b: u8) -> u8 {
    ((u16::from(a) + u16::from(b) + 1) >> 1) as u8
}

/// The digit that multiplying by 3 extracts, in bits 6 and 7, and the remainder.
#[inline(always)]
pub fn digit(byte: u8) -> (u8, u8) {
    // Three quarters of the byte, rounded down twice, which does not change the two bits; the test tries all bytes.
    let less = byte.saturating_sub(1);
    (mean(less, mean(less, 0)) & 0xc0, byte.wrapping_mul(3))
}

/// Moves the bits of groups `2 · K` and `2 · K + 1` to bit 2 of both nibbles.
#[inline(always)]
fn place<const K: usize>(byte: u8) -> u8 {
    (match K {
        0 => byte << 2,
        1 => byte << 1,
        2 => byte,
        _ => byte >> 1,
    }) & 0x44
}

/// The nibbles of groups `2 · K` and `2 · K + 1`.
#[inline(always)]
fn nibbles<const K: usize>(pairs: &[u8; 64], bits: &[u8; 64], out: &mut [u8; 64]) {
    for ((pairs, bits), out) in pairs.iter().zip(bits).zip(out) {
        *out = pairs >> (2 * (K % 2)) & 0x33 | place::<K>(*bits);
    }
}

/// Decompresses base-3 digits and third bits.
#[inline(always)]
fn decompress_ternary(plane: Plane, quants: &[u8], out: &mut [u8]) {
    let (digits, bits) = quants.split_at(64 * TERNARY_VECTORS);
    let mut vectors = [[0_u8; 64]; 16];
    let mut last = [0_u8; 64];
    for (vector, digits) in digits.as_chunks::<64>().0.iter().enumerate() {
        for ((byte, pairs), last) in digits.iter().zip(&mut vectors[vector]).zip(&mut last) {
            let (a, rest) = digit(*byte);
            let (b, rest) = digit(rest);
            let (c, rest) = digit(rest);
            let (d, rest) = digit(rest);
            *pairs = a >> 6 | b >> 4 | c >> 2 | d;
            *last = *last >> 2 | digit(rest).0;
        }
        if vector % 4 == 3 {
            vectors[TERNARY_VECTORS + vector / 4] = last;
        }
    }
    if plane == Plane::None {
        out.copy_from_slice(vectors.as_flattened());
        return;
    }
    for (block, (vectors, out)) in vectors.as_chunks::<2>().0.iter().zip(out.as_chunks_mut::<256>().0).enumerate() {
        let bits = third_bits(plane, &bits[plane.bytes() / 8 * block..][..plane.bytes() / 8]);
        if let [first, second, third, fourth] = out.as_chunks_mut::<64>().0 {
            nibbles::<0>(&vectors[0], &bits, first);
            nibbles::<1>(&vectors[0], &bits, second);
            nibbles::<2>(&vectors[1], &bits, third);
            nibbles::<3>(&vectors[1], &bits, fourth);
        }
    }
}

/// The byte vector of third bits of 32 columns.
#[inline(always)]
fn third_bits(plane: Plane, bits: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    let rows = out.as_chunks_mut::<4>().0;
    match plane {
        Plane::None => {}
        Plane::Bits => out.copy_from_slice(bits),
        Plane::Rows => {
            let bits = u16::from_le_bytes([bits[0], bits[1]]);
            for (row, out) in rows.iter_mut().enumerate() {
                *out = [0_u8.wrapping_sub((bits >> row & 1) as u8); 4];
            }
        }
        Plane::Octets => {
            for (row, byte) in bits.iter().enumerate() {
                rows[row] = [(byte & 15) * 0x11; 4];
                rows[row + 8] = [(byte >> 4) * 0x11; 4];
            }
        }
    }
    out
}

/// Decompresses indices of 8 columns and signs.
#[inline(always)]
fn decompress_octets(grid: &Grid, quants: &[u8], out: &mut [u8]) {
    let (indices, rest) = quants.split_at(8 * 64);
    let (ninth, signs) = rest.split_at(if grid.ninth() { 64 } else { 0 });
    for (block, out) in out.as_chunks_mut::<256>().0.iter_mut().enumerate() {
        let indices = &indices.as_chunks::<64>().0[block];
        for octet in 0..4 {
            for row in 0..16 {
                let at = 16 * (row / 4) + 4 * octet + row % 4;
                let high = if grid.ninth() { usize::from(ninth[8 * block + at / 8] >> (at % 8) & 1) << 8 } else { 0 };
                let four = grid.words[usize::from(indices[at]) | high];
                out[64 * octet + 4 * row..][..4].copy_from_slice(&four.to_le_bytes());
            }
        }
        let signs = &signs.as_chunks::<64>().0[block];
        if let [first, second, third, fourth] = out.as_chunks_mut::<64>().0 {
            for i in 0..64 {
                first[i] |= place::<0>(signs[i]);
                second[i] |= place::<1>(signs[i]);
                third[i] |= place::<2>(signs[i]);
                fourth[i] |= place::<3>(signs[i]);
            }
        }
    }
}

/// Decompresses indices of 4 columns and signs.
#[inline(always)]
fn decompress_quads(grid: &Grid, quants: &[u8], out: &mut [u8]) {
    let (indices, signs) = quants.split_at(8 * 128);
    for (block, out) in out.as_chunks_mut::<256>().0.iter_mut().enumerate() {
        let indices = &indices.as_chunks::<128>().0[block];
        let signs = signs.as_chunks::<64>().0[block].as_chunks::<4>().0;
        for row in 0..16 {
            let signs = u32::from_le_bytes(signs[row]);
            for vector in 0..4 {
                let at = 16 * (row / 4) + 4 * vector + row % 4;
                let even = grid.words[usize::from(indices[at])];
                let odd = grid.words[usize::from(indices[64 + at])];
                let four = even | odd << 4 | signs << (3 - vector) & 0x8888_8888;
                out[64 * vector + 4 * row..][..4].copy_from_slice(&four.to_le_bytes());
            }
        }
    }
}
