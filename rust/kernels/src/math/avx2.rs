//! Lanes as two 256-bit registers.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lanes};
use crate::cpu::sets::Avx2;
use crate::simd::Simd;

/// Sixteen floats, the first eight in the first register.
#[derive(Clone, Copy)]
pub(crate) struct Lanes256(__m256, __m256);

/// Wraps intrinsics, whose features the token guarantees.
macro_rules! vector {
    ($value:expr) => {
        // SAFETY: the token or the value of this type that every function takes exists only where the processor has the
        // features; pointers come from references to arrays of the size that is read or written.
        unsafe { $value }
    };
}

/// Applies an intrinsic to both registers of its operands.
macro_rules! both {
    ($intrinsic:ident($($operand:expr),*)) => {
        vector!(Lanes256($intrinsic($($operand.0),*), $intrinsic($($operand.1),*)))
    };
}

/// The sum of eight floats: lane `i` plus lane `i + 4`, then `+ 2`, `+ 1`.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn sum8(eight: __m256) -> f32 {
    vector!({
        let four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    })
}

/// The largest of eight floats, in the order of [`sum8`].
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
pub(super) unsafe fn largest8(eight: __m256) -> f32 {
    vector!({
        let four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps::<1>(eight));
        let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
    })
}

/// Lane `i` of vector `j` becomes lane `j` of vector `i`.
///
/// # Safety
/// The processor has AVX.
#[inline(always)]
unsafe fn transpose8(rows: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = rows;
    let mut fours = rows;
    let mut columns = rows;
    vector!({
        for i in 0..4 {
            pairs[2 * i] = _mm256_unpacklo_ps(rows[2 * i], rows[2 * i + 1]);
            pairs[2 * i + 1] = _mm256_unpackhi_ps(rows[2 * i], rows[2 * i + 1]);
        }
        for i in 0..2 {
            for j in 0..2 {
                let (first, second) = (_mm256_castps_pd(pairs[4 * i + j]), _mm256_castps_pd(pairs[4 * i + j + 2]));
                fours[4 * i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(first, second));
                fours[4 * i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(first, second));
            }
        }
        // Half h of fours[4 * i + j] has column 4 * h + j of the rows from 4 * i on.
        for j in 0..4 {
            columns[j] = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
            columns[4 + j] = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
        }
    });
    columns
}

/// `Lanes::dot4` for eight lanes. `vpmaddubsw` needs one unsigned operand: the magnitudes of the factors; their signs are
/// moved to the bytes. No pair of products overflows 16 bits, since 2 * 127 * 127 < 2^15.
///
/// # Safety
/// The processor has AVX2.
#[inline(always)]
unsafe fn dot8(sums: __m256i, bytes: __m256i, quad: __m256i) -> __m256i {
    vector!({
        let signed = _mm256_sign_epi8(_mm256_xor_si256(bytes, _mm256_set1_epi8(i8::MIN)), quad);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(quad), signed);
        _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)))
    })
}

impl Lanes for Lanes256 {
    type Set = Avx2;
    type Integers = (__m256i, __m256i);
    const MANY_REGISTERS: bool = false;
    // Without instructions for signs, and with half as many others, for which there are more pipes: measured on Zen 4, 66
    // instead of 50 GMAC/s a core.
    const TERMS: usize = 2;

    #[inline(always)]
    fn splat(_set: Self::Set, value: f32) -> Self {
        let register = vector!(_mm256_set1_ps(value));
        Self(register, register)
    }

    #[inline(always)]
    fn load(_set: Self::Set, values: &[f32; LANES]) -> Self {
        vector!(Self(_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        vector!({
            _mm256_storeu_ps(to.as_mut_ptr(), self.0);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), self.1);
        });
    }

    #[inline(always)]
    fn load_floats(_set: Self::Set, bytes: &[u8; 4 * LANES]) -> Self {
        let from: *const f32 = bytes.as_ptr().cast();
        vector!(Self(_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))))
    }

    #[inline(always)]
    fn load_halves(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        let from: *const __m128i = bytes.as_ptr().cast();
        vector!(Self(_mm256_cvtph_ps(_mm_loadu_si128(from)), _mm256_cvtph_ps(_mm_loadu_si128(from.add(1)))))
    }

    #[inline(always)]
    fn load_brains(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        vector!(Self(Avx2::brains(bytes.as_ptr()), Avx2::brains(bytes.as_ptr().add(LANES))))
    }

    #[inline(always)]
    fn store_floats(self, to: &mut [u8; 4 * LANES]) {
        let to: *mut f32 = to.as_mut_ptr().cast();
        vector!({
            _mm256_storeu_ps(to, self.0);
            _mm256_storeu_ps(to.add(8), self.1);
        });
    }

    #[inline(always)]
    fn store_halves(self, to: &mut [u8; 2 * LANES]) {
        const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
        let to: *mut __m128i = to.as_mut_ptr().cast();
        vector!({
            _mm_storeu_si128(to, _mm256_cvtps_ph::<NEAREST>(self.0));
            _mm_storeu_si128(to.add(1), _mm256_cvtps_ph::<NEAREST>(self.1));
        });
    }

    #[inline(always)]
    fn store_low_bytes(self, to: &mut [u8; LANES]) {
        vector!({
            let mask = _mm256_set1_epi32(255);
            let first = _mm256_and_si256(_mm256_castps_si256(self.0), mask);
            let second = _mm256_and_si256(_mm256_castps_si256(self.1), mask);
            // Packing interleaves the halves of the registers: 0-3, 8-11, 4-7, 12-15.
            let words = _mm256_permute4x64_epi64::<0xd8>(_mm256_packus_epi32(first, second));
            let bytes = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        });
    }

    #[inline(always)]
    fn load_signed_bytes(_set: Self::Set, bytes: &[u8; LANES]) -> Self {
        vector!({
            let all = _mm_loadu_si128(bytes.as_ptr().cast());
            let upper = _mm_unpackhi_epi64(all, all);
            Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(upper)))
        })
    }

    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        both!(_mm256_fmadd_ps(self, factor, addend))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        both!(_mm256_add_ps(self, other))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        both!(_mm256_sub_ps(self, other))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        both!(_mm256_mul_ps(self, other))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        both!(_mm256_div_ps(self, other))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        both!(_mm256_max_ps(self, other))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        both!(_mm256_min_ps(self, other))
    }

    #[inline(always)]
    fn select_below(self, bound: Self, yes: Self, no: Self) -> Self {
        vector!(Self(
            _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0)),
            _mm256_blendv_ps(no.1, yes.1, _mm256_cmp_ps::<_CMP_LT_OQ>(self.1, bound.1)),
        ))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        vector!({
            let one = _mm256_set1_epi32(1.0f32.to_bits().cast_signed());
            let first = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.0));
            let second = _mm256_slli_epi32::<23>(_mm256_castps_si256(self.1));
            Self(_mm256_castsi256_ps(_mm256_add_epi32(first, one)), _mm256_castsi256_ps(_mm256_add_epi32(second, one)))
        })
    }

    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut columns = rows;
        for half in 0..2 {
            let (mut first, mut second) = ([rows[0].0; 8], [rows[0].0; 8]);
            for i in 0..8 {
                (first[i], second[i]) = (rows[8 * half + i].0, rows[8 * half + i].1);
            }
            // The rows of this half become this half of the columns.
            let (first, second) = vector!((transpose8(first), transpose8(second)));
            for i in 0..8 {
                if half == 0 {
                    (columns[i].0, columns[8 + i].0) = (first[i], second[i]);
                } else {
                    (columns[i].1, columns[8 + i].1) = (first[i], second[i]);
                }
            }
        }
        columns
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        vector!(sum8(_mm256_add_ps(self.0, self.1)))
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        vector!(largest8(_mm256_max_ps(self.0, self.1)))
    }

    #[inline(always)]
    fn integers(_set: Self::Set, _factors: i32) -> Self::Integers {
        let register = vector!(_mm256_setzero_si256());
        (register, register)
    }

    #[inline(always)]
    fn dot4(sums: Self::Integers, bytes: &[u8; 4 * LANES], quad: i32) -> Self::Integers {
        let from: *const __m256i = bytes.as_ptr().cast();
        vector!({
            let quad = _mm256_set1_epi32(quad);
            (dot8(sums.0, _mm256_loadu_si256(from), quad), dot8(sums.1, _mm256_loadu_si256(from.add(1)), quad))
        })
    }

    #[inline(always)]
    fn dot2(sums: Self::Integers, words: &[u8; 4 * LANES], pair: i32) -> Self::Integers {
        let from: *const __m256i = words.as_ptr().cast();
        vector!({
            let pair = _mm256_set1_epi32(pair);
            let first = _mm256_madd_epi16(_mm256_loadu_si256(from), pair);
            let second = _mm256_madd_epi16(_mm256_loadu_si256(from.add(1)), pair);
            (_mm256_add_epi32(sums.0, first), _mm256_add_epi32(sums.1, second))
        })
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, to: &mut [i32; LANES]) {
        let to: *mut __m256i = to.as_mut_ptr().cast();
        vector!({
            for (half, (first, second)) in [(first.0, second.0), (first.1, second.1)].into_iter().enumerate() {
                let upper = _mm256_slli_epi32::<16>(_mm256_castps_si256(second));
                _mm256_storeu_si256(to.add(half), _mm256_blend_epi16::<0xaa>(_mm256_castps_si256(first), upper));
            }
        });
    }

    #[inline(always)]
    fn from_integers(values: Self::Integers) -> Self {
        vector!(Self(_mm256_cvtepi32_ps(values.0), _mm256_cvtepi32_ps(values.1)))
    }
}
