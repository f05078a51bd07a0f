//! AVX-VNNI: AVX2 with `vpdpbusd` in its 256-bit VEX form.

use std::arch::x86_64::*;

use super::avx2::{common_operations, hold};
use super::{Simd, operations};
use crate::cpu::sets::AvxVnni;

// SAFETY: every pointer is read or written for one vector.
unsafe impl Simd for AvxVnni {
    const LANES: usize = 8;
    const SIGNED_ZERO: i32 = 0;
    type Bytes = __m256i;
    type Sums = __m256i;
    type Floats = __m256;
    type Scale = __m256i;
    type Integers = __m256i;

    common_operations!();

    operations! {
        fn unscaled() -> __m256i { _mm256_set1_epi32(1) }
        fn signed_scale(at: *const u8) -> __m256i { _mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast())) }
        fn unsigned_scale(at: *const u8) -> __m256i { _mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())) }
        fn low_nibble_scale(at: *const u8) -> __m256i {
            _mm256_and_si256(_mm256_cvtepu8_epi32(_mm_loadl_epi64(at.cast())), _mm256_set1_epi32(15))
        }
        fn add_pairs(total: __m256i, pairs: __m256i, sums: *const i32) -> __m256i {
            _mm256_dpwssd_avx_epi32(total, pairs, _mm256_set1_epi32(*sums))
        }
        fn empty() -> __m256i { _mm256_setzero_si256() }
        fn begin(start: *const i32) -> __m256i { _mm256_set1_epi32(*start) }
        fn add_products(_maximum: u32, sum: __m256i, weights: __m256i, activations: *const i32) -> __m256i {
            _mm256_dpbusd_avx_epi32(sum, weights, _mm256_set1_epi32(*activations))
        }
        fn finish(sum: __m256i, _start: *const i32) -> __m256 { _mm256_cvtepi32_ps(sum) }
        fn add_scaled(total: __m256i, sum: __m256i, scale: __m256i) -> __m256i {
            _mm256_add_epi32(total, _mm256_mullo_epi32(sum, scale))
        }
    }

    #[inline(always)]
    unsafe fn hold(sum: &mut __m256i) {
        // SAFETY: the caller promises the instruction set.
        unsafe { hold(sum) }
    }

    #[inline(always)]
    unsafe fn carry(_maximum: u32, _group: usize, sum: __m256i, _scale: __m256i) -> __m256i {
        sum
    }

    #[inline(always)]
    unsafe fn add_start(total: __m256i, _start: *const i32, _scale: __m256i) -> __m256i {
        total
    }
}
