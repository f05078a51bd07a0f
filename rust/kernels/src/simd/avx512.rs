//! AVX-512 with VNNI: 16 rows in a vector, `vpdpbusd` with the activations broadcast from memory.

use std::arch::x86_64::*;

use super::{Simd, Stored, operations};
use crate::cpu::sets::Avx512;

// SAFETY: every pointer is read or written for one vector.
unsafe impl Simd for Avx512 {
    const LANES: usize = 16;
    const SIGNED_ZERO: i32 = 0;
    type Bytes = __m512i;
    type Sums = __m512i;
    type Floats = __m512;
    type Scale = __m512i;
    type Integers = __m512i;

    operations! {
        fn bytes(at: *const u8) -> __m512i { _mm512_loadu_si512(at.cast()) }
        fn store_bytes(at: *mut u8, value: __m512i) { _mm512_storeu_si512(at.cast(), value) }
        fn mask(value: __m512i, mask: u8) -> __m512i { _mm512_and_si512(value, _mm512_set1_epi8(mask as i8)) }
        fn merge(low: __m512i, high: __m512i, mask: u8) -> __m512i {
            // low | (high & mask)
            _mm512_ternarylogic_epi32::<0xf8>(low, high, _mm512_set1_epi8(mask as i8))
        }
        fn right<const N: u32>(value: __m512i) -> __m512i { _mm512_srli_epi16::<N>(value) }
        fn left<const N: u32>(value: __m512i) -> __m512i { _mm512_slli_epi16::<N>(value) }
        fn table(at: *const u8) -> __m512i { _mm512_broadcast_i32x4(_mm_loadu_si128(at.cast())) }
        fn lookup(table: __m512i, index: __m512i) -> __m512i { _mm512_shuffle_epi8(table, index) }
        fn zero() -> __m512 { _mm512_setzero_ps() }
        fn floats(at: *const f32) -> __m512 { _mm512_loadu_ps(at) }
        fn store_floats(at: *mut f32, value: __m512) { _mm512_storeu_ps(at, value) }
        fn halves(at: *const u8) -> __m512 { _mm512_cvtph_ps(_mm256_loadu_si256(at.cast())) }
        fn brains(at: *const u8) -> __m512 {
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(at.cast()))))
        }
        fn unscaled() -> __m512i { _mm512_set1_epi32(1) }
        fn signed_scale(at: *const u8) -> __m512i { _mm512_cvtepi8_epi32(_mm_loadu_si128(at.cast())) }
        fn unsigned_scale(at: *const u8) -> __m512i { _mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())) }
        fn low_nibble_scale(at: *const u8) -> __m512i {
            _mm512_and_si512(_mm512_cvtepu8_epi32(_mm_loadu_si128(at.cast())), _mm512_set1_epi32(15))
        }
        fn splat(value: f32) -> __m512 { _mm512_set1_ps(value) }
        fn mul(a: __m512, b: __m512) -> __m512 { _mm512_mul_ps(a, b) }
        fn fma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fmadd_ps(a, b, c) }
        fn fnma(a: __m512, b: __m512, c: __m512) -> __m512 { _mm512_fnmadd_ps(a, b, c) }
        fn pairs(first: *const u8, second: *const u8) -> __m512i {
            _mm512_or_si512(Self::unsigned_scale(first), _mm512_slli_epi32::<16>(Self::unsigned_scale(second)))
        }
        fn high_nibble_pairs(first: *const u8, second: *const u8) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi16::<4>(Self::pairs(first, second)), _mm512_set1_epi16(15))
        }
        fn add_pairs(total: __m512i, pairs: __m512i, sums: *const i32) -> __m512i {
            _mm512_dpwssd_epi32(total, pairs, _mm512_set1_epi32(*sums))
        }
        fn empty() -> __m512i { _mm512_setzero_si512() }
        fn begin(start: *const i32) -> __m512i { _mm512_set1_epi32(*start) }
        fn add_products(_maximum: u32, sum: __m512i, weights: __m512i, activations: *const i32) -> __m512i {
            _mm512_dpbusd_epi32(sum, weights, _mm512_set1_epi32(*activations))
        }
        fn finish(sum: __m512i, _start: *const i32) -> __m512 { _mm512_cvtepi32_ps(sum) }
        fn integers() -> __m512i { _mm512_setzero_si512() }
        fn add_scaled(total: __m512i, sum: __m512i, scale: __m512i) -> __m512i {
            _mm512_add_epi32(total, _mm512_mullo_epi32(sum, scale))
        }
        fn to_floats(value: __m512i) -> __m512 { _mm512_cvtepi32_ps(value) }
        fn prefetch_far(at: *const u8) { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
        fn prefetch_near(at: *const u8) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    unsafe fn carry(_maximum: u32, _group: usize, sum: __m512i, _scale: __m512i) -> __m512i {
        sum
    }

    #[inline(always)]
    unsafe fn add_start(total: __m512i, _start: *const i32, _scale: __m512i) -> __m512i {
        total
    }
}

// SAFETY: every pointer is read for one vector.
unsafe impl Stored for Avx512 {
    operations! {
        fn loaded(at: *const i32) -> __m512i { _mm512_loadu_si512(at.cast()) }
        fn plus(value: __m512i, start: *const i32) -> __m512i { _mm512_add_epi32(value, _mm512_set1_epi32(*start)) }
        fn scale_floats(scale: __m512i) -> __m512 { _mm512_cvtepi32_ps(scale) }
    }
}
