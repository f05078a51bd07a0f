//! Decompression with AVX-512 VBMI, whose `vpermi2b` looks up 64 bytes in a table of 128.

use std::arch::x86_64::*;

use super::blocks::Blocks;
use super::compression::{CompressedQuants, Plane, TERNARY_VECTORS};
use super::decompress_scales::{decompress_scales, unit_quants};
use super::grids::Grid;
use crate::cpu::sets::Avx512Vbmi;

/// The first four base-3 digits as bit pairs of a byte, indexed by the byte that encodes five.
static FOUR_DIGITS: [u8; 256] = digits(false);
/// The fifth digit, in all four bit pairs, indexed likewise.
static FIFTH_DIGIT: [u8; 256] = digits(true);

/// Digits in the form in which `decompress` reads them.
const fn digits(fifth: bool) -> [u8; 256] {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut rest = index;
        let mut place = 0;
        while place < 5 {
            let digit = ((rest * 3) >> 8) as u8;
            rest = (rest * 3) & 255;
            if fifth && place == 4 {
                table[index] = digit * 0b0101_0101;
            } else if !fifth && place < 4 {
                table[index] |= digit << (2 * place);
            }
            place += 1;
        }
        index += 1;
    }
    table
}

/// Does the same as `decompress::decompress_units`.
///
/// # Panics
/// If the slices are not whole units.
pub(super) fn decompress<B: Blocks>(
    _set: Avx512Vbmi,
    quants: &[u8],
    scales: &[u8],
    to_quants: &mut [u8],
    to_scales: &mut [u8],
) {
    // SAFETY: the token exists only where the processor has the features.
    unsafe { decompress_units::<B>(quants, scales, to_quants, to_scales) }
}

#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn decompress_units<B: Blocks>(quants: &[u8], scales: &[u8], to_quants: &mut [u8], to_scales: &mut [u8]) {
    let Some(compression) = &B::FOLDING else { return };
    if let Some(bytes) = compression.quant_bytes() {
        for (quants, out) in quants.chunks_exact(bytes).zip(to_quants.chunks_exact_mut(unit_quants(B::PACKING.bits))) {
            match compression.quants {
                CompressedQuants::Plain => {}
                CompressedQuants::Ternary(plane) => ternary(plane, quants, out),
                CompressedQuants::Octets(grid) if grid.ninth() => octets::<4>(grid, quants, out),
                CompressedQuants::Octets(grid) => octets::<2>(grid, quants, out),
                CompressedQuants::Quads(grid) => quads(grid, quants, out),
            }
        }
    }
    decompress_scales(compression, &B::PACKING, scales, to_scales);
}

/// Loads 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: the reference is good for 64 bytes.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Writes 64 bytes from `at` on.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(out: &mut [u8], at: usize, value: __m512i) {
    let out = &mut out[at..at + 64];
    // SAFETY: the slice is good for 64 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), value) }
}

/// A table of `N` × 128 bytes, in registers.
#[derive(Clone, Copy)]
struct Lookup<const N: usize>([[__m512i; 2]; N]);

impl<const N: usize> Lookup<N> {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(table: &[u8]) -> Self {
        let mut vectors = [[_mm512_setzero_si512(); 2]; N];
        for (vectors, table) in vectors.iter_mut().zip(table.as_chunks::<128>().0) {
            let halves = table.as_chunks::<64>().0;
            *vectors = [load(&halves[0]), load(&halves[1])];
        }
        Self(vectors)
    }

    /// Looks up entries; bits 7 and 8 of the indices are passed separately.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn entries(&self, index: __m512i, eighth: __mmask64, ninth: __mmask64) -> __m512i {
        let of = |[first, second]: [__m512i; 2]| _mm512_permutex2var_epi8(first, index, second);
        let low = _mm512_mask_blend_epi8(eighth, of(self.0[0]), of(self.0[1]));
        if N == 2 {
            return low;
        }
        _mm512_mask_blend_epi8(ninth, low, _mm512_mask_blend_epi8(eighth, of(self.0[2]), of(self.0[3])))
    }
}

/// Selects bits of `a` where `mask` has ones, otherwise of `b`.
macro_rules! select {
    ($mask:expr, $a:expr, $b:expr) => {
        _mm512_ternarylogic_epi32::<0xca>($mask, $a, $b)
    };
}

/// Writes the four vectors of 32 columns: two nibbles of 4 columns each per byte, whose bits 2 and 3 come from `$bits`.
macro_rules! store_nibbles {
    ($out:ident, $bits:expr, $first:expr, $second:expr, $third:expr, $fourth:expr) => {{
        let (bits, pairs) = ($bits, _mm512_set1_epi8(0x33));
        store($out, 0, select!(pairs, $first, _mm512_slli_epi16::<2>(bits)));
        store($out, 64, select!(pairs, $second, _mm512_add_epi8(bits, bits)));
        store($out, 128, select!(pairs, $third, bits));
        store($out, 192, select!(pairs, $fourth, _mm512_srli_epi16::<1>(bits)));
    }};
}

/// Decompresses base-3 digits and third bits.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn ternary(plane: Plane, quants: &[u8], out: &mut [u8]) {
    let (digits, bits) = quants.split_at(64 * TERNARY_VECTORS);
    let digits = digits.as_chunks::<64>().0;
    let (four, fifth) = (Lookup::<2>::new(&FOUR_DIGITS), Lookup::<2>::new(&FIFTH_DIGIT));
    let pair = _mm512_set1_epi8(3);
    let masks = [pair, _mm512_slli_epi16::<2>(pair), _mm512_slli_epi16::<4>(pair), _mm512_slli_epi16::<6>(pair)];
    let mut last = [_mm512_setzero_si512(); 4];
    macro_rules! vector {
        ($index:expr) => {
            if $index < TERNARY_VECTORS {
                let digits = load(&digits[$index]);
                let eighth = _mm512_movepi8_mask(digits);
                let last = &mut last[$index / 4];
                *last = select!(masks[$index % 4], fifth.entries(digits, eighth, 0), *last);
                four.entries(digits, eighth, 0)
            } else {
                last[$index - TERNARY_VECTORS]
            }
        };
    }
    macro_rules! block {
        ($($block:literal)*) => { $(
            let (first, second) = (vector!(2 * $block), vector!(2 * $block + 1));
            if plane == Plane::None {
                store(out, 128 * $block, first);
                store(out, 128 * $block + 64, second);
            } else {
                let out = &mut out.as_chunks_mut::<256>().0[$block];
                let third = third_bits(plane, bits, $block);
                store_nibbles!(out, third, first, _mm512_srli_epi16::<2>(first), second, _mm512_srli_epi16::<2>(second));
            }
        )* };
    }
    block!(0 1 2 3 4 5 6 7);
}

/// The byte vector of third bits of 32 columns.
#[inline]
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn third_bits(plane: Plane, bits: &[u8], block: usize) -> __m512i {
    match plane {
        Plane::None => _mm512_setzero_si512(),
        Plane::Bits => load(&bits.as_chunks::<64>().0[block]),
        Plane::Rows => _mm512_maskz_set1_epi32(u16::from_le_bytes(bits.as_chunks::<2>().0[block]), -1),
        Plane::Octets => {
            // The byte of rows r and r + 8 broadcast to all bytes of both, then their nibbles.
            let bytes = _mm_set1_epi64x(i64::from_le_bytes(bits.as_chunks::<8>().0[block]));
            let shift = _mm512_inserti64x4::<1>(_mm512_setzero_si512(), _mm256_set1_epi32(4));
            let nibbles = _mm512_srlv_epi32(_mm512_cvtepu8_epi32(bytes), shift);
            _mm512_mullo_epi32(_mm512_and_si512(nibbles, _mm512_set1_epi32(15)), _mm512_set1_epi32(0x1111_1111))
        }
    }
}

/// Interleaves bytes of four columns into the four vectors in which the columns of a row are side by side.
macro_rules! side_by_side {
    ($first:expr, $second:expr, $third:expr, $fourth:expr) => {{
        let (first, second, third, fourth) = ($first, $second, $third, $fourth);
        let (ab, cd) = (_mm512_unpacklo_epi8(first, second), _mm512_unpacklo_epi8(third, fourth));
        let (ef, gh) = (_mm512_unpackhi_epi8(first, second), _mm512_unpackhi_epi8(third, fourth));
        [
            _mm512_unpacklo_epi16(ab, cd),
            _mm512_unpackhi_epi16(ab, cd),
            _mm512_unpacklo_epi16(ef, gh),
            _mm512_unpackhi_epi16(ef, gh),
        ]
    }};
}

/// Decompresses indices of 8 columns and signs.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn octets<const N: usize>(grid: &Grid, quants: &[u8], out: &mut [u8]) {
    let (indices, rest) = quants.split_at(8 * 64);
    let (ninth, signs) = rest.split_at(if N > 2 { 64 } else { 0 });
    let (low, high) = (Lookup::<N>::new(grid.low), Lookup::<N>::new(grid.high));
    let blocks = indices.as_chunks::<64>().0.iter().zip(signs.as_chunks::<64>().0).zip(out.as_chunks_mut::<256>().0);
    for (block, ((indices, signs), out)) in blocks.enumerate() {
        let indices = load(indices);
        let eighth = _mm512_movepi8_mask(indices);
        let ninth = if N > 2 { u64::from_le_bytes(ninth.as_chunks::<8>().0[block]) } else { 0 };
        let (a, b) = (low.entries(indices, eighth, ninth), high.entries(indices, eighth, ninth));
        let [first, second, third, fourth] = side_by_side!(a, _mm512_srli_epi16::<2>(a), b, _mm512_srli_epi16::<2>(b));
        store_nibbles!(out, load(signs), first, second, third, fourth);
    }
}

/// Decompresses indices of 4 columns and signs.
#[target_feature(enable = "avx2,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi")]
fn quads(grid: &Grid, quants: &[u8], out: &mut [u8]) {
    let (indices, signs) = quants.split_at(8 * 128);
    let (low, high) = (Lookup::<2>::new(grid.low), Lookup::<2>::new(grid.high));
    let nibble = _mm512_set1_epi8(15);
    let blocks = indices.as_chunks::<128>().0.iter().zip(signs.as_chunks::<64>().0).zip(out.as_chunks_mut::<256>().0);
    for ((indices, signs), out) in blocks {
        let [even, odd] = [load(&indices.as_chunks::<64>().0[0]), load(&indices.as_chunks::<64>().0[1])];
        let (even_eighth, odd_eighth) = (_mm512_movepi8_mask(even), _mm512_movepi8_mask(odd));
        let (a, b) = (low.entries(even, even_eighth, 0), low.entries(odd, odd_eighth, 0));
        let (c, d) = (high.entries(even, even_eighth, 0), high.entries(odd, odd_eighth, 0));
        // One column of both indices per byte.
        let vectors = side_by_side!(
            select!(nibble, a, _mm512_slli_epi16::<4>(b)),
            select!(nibble, _mm512_srli_epi16::<4>(a), b),
            select!(nibble, c, _mm512_slli_epi16::<4>(d)),
            select!(nibble, _mm512_srli_epi16::<4>(c), d)
        );
        let (signs, mask) = (load(signs), _mm512_set1_epi8(-0x78));
        macro_rules! signed {
            ($index:literal) => {
                // value | (signs & mask)
                let moved = _mm512_slli_epi16::<{ 3 - $index }>(signs);
                store(out, 64 * $index, _mm512_ternarylogic_epi32::<0xf8>(vectors[$index], moved, mask));
            };
        }
        signed!(0);
        signed!(1);
        signed!(2);
        signed!(3);
    }
}
