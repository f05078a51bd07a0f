//! AVX2 with FMA and F16C: 8 rows in a vector, two vectors per group.
//!
//! Weights are multiplied by the tile in `matmul::narrow`; the sums here only measure the peak. `vpmaddubsw` adds two
//! products of an unsigned and a signed byte in 16 bits, with saturation. It stays exact while the sums of a lane stay below
//! 32768: for all 8 groups of a block with quants up to 15 (8 · 2 · 15 · 127 = 30480), 4 groups up to 31, 2 up to 63, 1 up
//! to 127; then `vpmaddwd` widens them. Larger values are multiplied as 16 bits.

use std::arch::x86_64::*;

use super::{Form, Simd, operations};
use crate::cpu::sets::Avx2;

/// The operations that AVX2 and AVX-VNNI share: everything but the sums.
macro_rules! common_operations {
    () => {
        operations! {
            fn bytes(at: *const u8) -> __m256i { _mm256_loadu_si256(at.cast()) }
            fn store_bytes(at: *mut u8, value: __m256i) { _mm256_storeu_si256(at.cast(), value) }
            fn mask(value: __m256i, mask: u8) -> __m256i { _mm256_and_si256(value, _mm256_set1_epi8(mask as i8)) }
            fn merge(low: __m256i, high: __m256i, mask: u8) -> __m256i {
                _mm256_or_si256(low, _mm256_and_si256(high, _mm256_set1_epi8(mask as i8)))
            }
            fn right<const N: u32>(value: __m256i) -> __m256i { _mm256_srl_epi16(value, _mm_cvtsi32_si128(N as i32)) }
            fn left<const N: u32>(value: __m256i) -> __m256i { _mm256_sll_epi16(value, _mm_cvtsi32_si128(N as i32)) }
            fn table(at: *const u8) -> __m256i { _mm256_broadcastsi128_si256(_mm_loadu_si128(at.cast())) }
            fn lookup(table: __m256i, index: __m256i) -> __m256i { _mm256_shuffle_epi8(table, index) }
            fn zero() -> __m256 { _mm256_setzero_ps() }
            fn floats(at: *const f32) -> __m256 { _mm256_loadu_ps(at) }
            fn store_floats(at: *mut f32, value: __m256) { _mm256_storeu_ps(at, value) }
            fn halves(at: *const u8) -> __m256 { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
            fn brains(at: *const u8) -> __m256 {
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(at.cast()))))
            }
            fn pairs(first: *const u8, second: *const u8) -> __m256i {{
                let (first, second) = (_mm_loadl_epi64(first.cast()), _mm_loadl_epi64(second.cast()));
                _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(first, second))
            }}
            fn high_nibble_pairs(first: *const u8, second: *const u8) -> __m256i {
                _mm256_and_si256(_mm256_srli_epi16::<4>(Self::pairs(first, second)), _mm256_set1_epi16(15))
            }
            fn splat(value: f32) -> __m256 { _mm256_set1_ps(value) }
            fn mul(a: __m256, b: __m256) -> __m256 { _mm256_mul_ps(a, b) }
            fn fma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fmadd_ps(a, b, c) }
            fn fnma(a: __m256, b: __m256, c: __m256) -> __m256 { _mm256_fnmadd_ps(a, b, c) }
            fn integers() -> __m256i { _mm256_setzero_si256() }
            fn to_floats(value: __m256i) -> __m256 { _mm256_cvtepi32_ps(value) }
            fn prefetch_far(at: *const u8) { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
            fn prefetch_near(at: *const u8) { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
        }
    };
}
pub(crate) use common_operations;

/// Running sums: pairs of 16 bits that are still to be widened, and the widened sums.
#[derive(Clone, Copy)]
pub(crate) struct Sums {
    narrow: __m256i,
    wide: __m256i,
}

/// The largest value whose products are accumulated in 16 bits.
pub(crate) const NARROW: u32 = 63;

/// Bytes 0 to 7 at `at`, each twice in a lane of 16-bit halves, in their low bytes or, with `HIGH`, their high bytes.
#[inline(always)]
unsafe fn twice<const HIGH: bool>(at: *const u8) -> __m256i {
    // SAFETY: the caller promises the instruction set and 8 bytes.
    unsafe {
        let eight = _mm256_set1_epi64x(at.cast::<i64>().read_unaligned());
        // 0x80 gives a zero.
        let low = _mm256_set_epi32(
            0x8007_8007_u32 as i32,
            0x8006_8006_u32 as i32,
            0x8005_8005_u32 as i32,
            0x8004_8004_u32 as i32,
            0x8003_8003_u32 as i32,
            0x8002_8002_u32 as i32,
            0x8001_8001_u32 as i32,
            0x8000_8000_u32 as i32,
        );
        let order = if HIGH { _mm256_or_si256(_mm256_slli_epi16::<8>(low), _mm256_set1_epi16(0x80)) } else { low };
        _mm256_shuffle_epi8(eight, order)
    }
}

/// Number of groups whose sums fit into 16 bits.
const fn narrow_groups(maximum: u32) -> usize {
    match maximum {
        0..=15 => 8,
        16..=31 => 4,
        32..=63 => 2,
        _ => 1,
    }
}

// SAFETY: every pointer is read or written for one vector.
unsafe impl Simd for Avx2 {
    const LANES: usize = 8;
    const SIGNED_ZERO: i32 = 0;
    type Bytes = __m256i;
    type Sums = Sums;
    type Floats = __m256;
    type Scale = __m256i;
    type Integers = __m256i;

    common_operations!();

    #[inline(always)]
    fn form(maximum: u32) -> Form {
        if maximum > NARROW { Form::Words } else { Form::Halves }
    }

    operations! {
        fn unscaled() -> __m256i { _mm256_set1_epi16(1) }
        fn signed_scale(at: *const u8) -> __m256i { _mm256_srai_epi16::<8>(twice::<true>(at)) }
        fn unsigned_scale(at: *const u8) -> __m256i { twice::<false>(at) }
        fn low_nibble_scale(at: *const u8) -> __m256i {
            _mm256_and_si256(twice::<false>(at), _mm256_set1_epi16(15))
        }
        fn empty() -> Sums { Sums { narrow: _mm256_setzero_si256(), wide: _mm256_setzero_si256() } }
        fn begin(_start: *const i32) -> Sums { Self::empty() }
        fn add_products(maximum: u32, sum: Sums, weights: __m256i, activations: *const i32) -> Sums {{
            let activations = _mm256_set1_epi32(*activations);
            if maximum > 127 {
                // Products of 16 bits: bytes 0 and 2 of each row, then 1 and 3.
                let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(activations));
                let even = _mm256_madd_epi16(_mm256_and_si256(weights, _mm256_set1_epi16(255)), even);
                let odd = _mm256_madd_epi16(_mm256_srli_epi16::<8>(weights), _mm256_srai_epi16::<8>(activations));
                Sums { narrow: sum.narrow, wide: _mm256_add_epi32(sum.wide, _mm256_add_epi32(even, odd)) }
            } else {
                let products = _mm256_maddubs_epi16(weights, activations);
                Sums { narrow: _mm256_add_epi16(sum.narrow, products), wide: sum.wide }
            }
        }}
        fn finish(sum: Sums, start: *const i32) -> __m256 {{
            let wide = _mm256_add_epi32(sum.wide, _mm256_madd_epi16(sum.narrow, _mm256_set1_epi16(1)));
            _mm256_cvtepi32_ps(_mm256_add_epi32(wide, _mm256_set1_epi32(*start)))
        }}
        fn add_scaled(total: __m256i, sum: Sums, scale: __m256i) -> __m256i {
            _mm256_add_epi32(total, _mm256_add_epi32(sum.wide, _mm256_madd_epi16(sum.narrow, scale)))
        }
        fn add_pairs(total: __m256i, pairs: __m256i, sums: *const i32) -> __m256i {
            _mm256_add_epi32(total, _mm256_madd_epi16(pairs, _mm256_set1_epi32(*sums)))
        }
        fn add_start(total: __m256i, start: *const i32, scale: __m256i) -> __m256i {
            _mm256_add_epi32(total, _mm256_mullo_epi32(_mm256_set1_epi32(*start), _mm256_srai_epi32::<16>(scale)))
        }
    }

    #[inline(always)]
    unsafe fn carry(maximum: u32, group: usize, sum: Sums, scale: __m256i) -> Sums {
        if !(group + 1).is_multiple_of(narrow_groups(maximum)) || group == 7 {
            return sum;
        }
        // SAFETY: the caller promises the instruction set.
        unsafe {
            let wide = _mm256_add_epi32(sum.wide, _mm256_madd_epi16(sum.narrow, scale));
            Sums { narrow: _mm256_setzero_si256(), wide }
        }
    }
}

/// Keeps a value in a register at this point of the program, which no memory access may be moved across.
///
/// # Safety
/// The processor has AVX2.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) unsafe fn hold(value: &mut __m256i) {
    // SAFETY: no instruction at all.
    unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) * value, options(nostack, preserves_flags)) };
}
