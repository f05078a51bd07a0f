//! Lanes as one 512-bit register.

use std::arch::x86_64::*;

use super::lanes::{LANES, Lanes};
use crate::cpu::sets::Avx512;
use crate::simd::Simd;

/// Sixteen floats.
#[derive(Clone, Copy)]
pub(crate) struct Lanes512(__m512);

/// Wraps intrinsics, whose features the token guarantees.
macro_rules! vector {
    ($value:expr) => {
        // SAFETY: the token or the value of this type that every function takes exists only where the processor has the
        // features; pointers come from references to arrays of the size that is read or written.
        unsafe { $value }
    };
}

impl Lanes for Lanes512 {
    type Set = Avx512;
    type Integers = __m512i;
    const MANY_REGISTERS: bool = true;

    #[inline(always)]
    fn splat(_set: Self::Set, value: f32) -> Self {
        Self(vector!(_mm512_set1_ps(value)))
    }

    #[inline(always)]
    fn load(_set: Self::Set, values: &[f32; LANES]) -> Self {
        Self(vector!(_mm512_loadu_ps(values.as_ptr())))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        vector!(_mm512_storeu_ps(to.as_mut_ptr(), self.0));
    }

    #[inline(always)]
    fn load_floats(_set: Self::Set, bytes: &[u8; 4 * LANES]) -> Self {
        Self(vector!(_mm512_loadu_ps(bytes.as_ptr().cast())))
    }

    #[inline(always)]
    fn load_halves(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        Self(vector!(_mm512_cvtph_ps(_mm256_loadu_si256(bytes.as_ptr().cast()))))
    }

    #[inline(always)]
    fn load_brains(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        Self(vector!(Avx512::brains(bytes.as_ptr())))
    }

    #[inline(always)]
    fn store_floats(self, to: &mut [u8; 4 * LANES]) {
        vector!(_mm512_storeu_ps(to.as_mut_ptr().cast(), self.0));
    }

    #[inline(always)]
    fn store_halves(self, to: &mut [u8; 2 * LANES]) {
        vector!({
            let halves = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), halves);
        });
    }

    #[inline(always)]
    fn store_low_bytes(self, to: &mut [u8; LANES]) {
        vector!(_mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0))));
    }

    #[inline(always)]
    fn load_signed_bytes(_set: Self::Set, bytes: &[u8; LANES]) -> Self {
        Self(vector!(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(bytes.as_ptr().cast())))))
    }

    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        Self(vector!(_mm512_fmadd_ps(self.0, factor.0, addend.0)))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(vector!(_mm512_add_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(vector!(_mm512_sub_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(vector!(_mm512_mul_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        Self(vector!(_mm512_div_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Self(vector!(_mm512_max_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Self(vector!(_mm512_min_ps(self.0, other.0)))
    }

    #[inline(always)]
    fn select_below(self, bound: Self, yes: Self, no: Self) -> Self {
        Self(vector!(_mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0), no.0, yes.0)))
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        Self(vector!({
            let exponent = _mm512_slli_epi32::<23>(_mm512_castps_si512(self.0));
            _mm512_castsi512_ps(_mm512_add_epi32(exponent, _mm512_set1_epi32(1.0f32.to_bits().cast_signed())))
        }))
    }

    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let mut pairs = rows;
        let mut fours = rows;
        let mut columns = rows;
        vector!({
            for i in 0..8 {
                pairs[2 * i].0 = _mm512_unpacklo_ps(rows[2 * i].0, rows[2 * i + 1].0);
                pairs[2 * i + 1].0 = _mm512_unpackhi_ps(rows[2 * i].0, rows[2 * i + 1].0);
            }
            for i in 0..4 {
                for j in 0..2 {
                    let first = _mm512_castps_pd(pairs[4 * i + j].0);
                    let second = _mm512_castps_pd(pairs[4 * i + j + 2].0);
                    fours[4 * i + 2 * j].0 = _mm512_castpd_ps(_mm512_unpacklo_pd(first, second));
                    fours[4 * i + 2 * j + 1].0 = _mm512_castpd_ps(_mm512_unpackhi_pd(first, second));
                }
            }
            // Quarter q of fours[4 * i + j] has column 4 * q + j of the rows from 4 * i on.
            for j in 0..4 {
                let [a, b, c, d] = [fours[j].0, fours[4 + j].0, fours[8 + j].0, fours[12 + j].0];
                let even = (_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0x88>(c, d));
                let odd = (_mm512_shuffle_f32x4::<0xdd>(a, b), _mm512_shuffle_f32x4::<0xdd>(c, d));
                columns[j].0 = _mm512_shuffle_f32x4::<0x88>(even.0, even.1);
                columns[4 + j].0 = _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1);
                columns[8 + j].0 = _mm512_shuffle_f32x4::<0xdd>(even.0, even.1);
                columns[12 + j].0 = _mm512_shuffle_f32x4::<0xdd>(odd.0, odd.1);
            }
        });
        columns
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        vector!({
            let eight = _mm256_add_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            super::avx2::sum8(eight)
        })
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        vector!({
            let eight = _mm256_max_ps(_mm512_castps512_ps256(self.0), _mm512_extractf32x8_ps::<1>(self.0));
            super::avx2::largest8(eight)
        })
    }

    /// The instruction multiplies unsigned bytes: what the offset of 128 adds to the sum is subtracted beforehand.
    #[inline(always)]
    fn integers(_set: Self::Set, factors: i32) -> Self::Integers {
        vector!(_mm512_set1_epi32(-128 * factors))
    }

    #[inline(always)]
    fn dot4(sums: Self::Integers, bytes: &[u8; 4 * LANES], quad: i32) -> Self::Integers {
        vector!(_mm512_dpbusd_epi32(sums, _mm512_loadu_si512(bytes.as_ptr().cast()), _mm512_set1_epi32(quad)))
    }

    #[inline(always)]
    fn dot2(sums: Self::Integers, words: &[u8; 4 * LANES], pair: i32) -> Self::Integers {
        vector!(_mm512_dpwssd_epi32(sums, _mm512_loadu_si512(words.as_ptr().cast()), _mm512_set1_epi32(pair)))
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, to: &mut [i32; LANES]) {
        vector!({
            let upper = _mm512_slli_epi32::<16>(_mm512_castps_si512(second.0));
            let pairs = _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_castps_si512(first.0), upper);
            _mm512_storeu_si512(to.as_mut_ptr().cast(), pairs);
        });
    }

    #[inline(always)]
    fn from_integers(values: Self::Integers) -> Self {
        Self(vector!(_mm512_cvtepi32_ps(values)))
    }
}
