//! Squares of floats transposed in registers: rows of weights become columns.

use crate::simd::Simd;

/// An instruction set that can transpose a square of floats.
///
/// # Safety
/// As for [`Simd`].
pub(crate) unsafe trait Square: Simd {
    /// Transposes the first `LANES` vectors.
    ///
    /// # Safety
    /// The processor has the set, and the code is compiled for it.
    unsafe fn transpose(rows: &mut [Self::Floats; 16]);
}

// SAFETY: registers only.
unsafe impl Square for crate::cpu::sets::Scalar {
    #[inline(always)]
    unsafe fn transpose(rows: &mut [[f32; 16]; 16]) {
        *rows = std::array::from_fn(|column| std::array::from_fn(|row| rows[row][column]));
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Square;

    // SAFETY: registers only.
    unsafe impl Square for crate::cpu::sets::Avx512 {
        #[inline(always)]
        unsafe fn transpose(rows: &mut [__m512; 16]) {
            // SAFETY: the caller promises the instruction set.
            unsafe {
                // Element 4 i + m: rows 4 i to 4 i + 3 of columns m, 4 + m, 8 + m and 12 + m.
                let mut fours = *rows;
                for i in (0..16).step_by(4) {
                    let (low, next_low) =
                        (_mm512_unpacklo_ps(rows[i], rows[i + 1]), _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]));
                    let (high, next_high) =
                        (_mm512_unpackhi_ps(rows[i], rows[i + 1]), _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]));
                    (fours[i], fours[i + 1]) = (low_pairs(low, next_low), high_pairs(low, next_low));
                    (fours[i + 2], fours[i + 3]) = (low_pairs(high, next_high), high_pairs(high, next_high));
                }
                for m in 0..4 {
                    let even = _mm512_shuffle_f32x4::<0x88>(fours[m], fours[4 + m]);
                    let odd = _mm512_shuffle_f32x4::<0xdd>(fours[m], fours[4 + m]);
                    let next_even = _mm512_shuffle_f32x4::<0x88>(fours[8 + m], fours[12 + m]);
                    let next_odd = _mm512_shuffle_f32x4::<0xdd>(fours[8 + m], fours[12 + m]);
                    rows[m] = _mm512_shuffle_f32x4::<0x88>(even, next_even);
                    rows[4 + m] = _mm512_shuffle_f32x4::<0x88>(odd, next_odd);
                    rows[8 + m] = _mm512_shuffle_f32x4::<0xdd>(even, next_even);
                    rows[12 + m] = _mm512_shuffle_f32x4::<0xdd>(odd, next_odd);
                }
            }
        }
    }

    /// The first of every two pairs of floats, taken alternately from both operands.
    #[inline(always)]
    unsafe fn low_pairs(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller promises the instruction set.
        unsafe { _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))) }
    }

    /// The second of every two pairs of floats, taken alternately from both operands.
    #[inline(always)]
    unsafe fn high_pairs(a: __m512, b: __m512) -> __m512 {
        // SAFETY: the caller promises the instruction set.
        unsafe { _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(a), _mm512_castps_pd(b))) }
    }

    /// Transposes eight rows of eight.
    #[inline(always)]
    unsafe fn transpose_eight(rows: &mut [__m256; 16]) {
        // SAFETY: the caller promises the instruction set.
        unsafe {
            // Element 4 i + m: rows 4 i to 4 i + 3 of columns m and 4 + m.
            let mut fours = *rows;
            for i in [0, 4] {
                let (low, next_low) =
                    (_mm256_unpacklo_ps(rows[i], rows[i + 1]), _mm256_unpacklo_ps(rows[i + 2], rows[i + 3]));
                let (high, next_high) =
                    (_mm256_unpackhi_ps(rows[i], rows[i + 1]), _mm256_unpackhi_ps(rows[i + 2], rows[i + 3]));
                fours[i] = _mm256_shuffle_ps::<0x44>(low, next_low);
                fours[i + 1] = _mm256_shuffle_ps::<0xee>(low, next_low);
                fours[i + 2] = _mm256_shuffle_ps::<0x44>(high, next_high);
                fours[i + 3] = _mm256_shuffle_ps::<0xee>(high, next_high);
            }
            for m in 0..4 {
                rows[m] = _mm256_permute2f128_ps::<0x20>(fours[m], fours[4 + m]);
                rows[4 + m] = _mm256_permute2f128_ps::<0x31>(fours[m], fours[4 + m]);
            }
        }
    }

    // SAFETY: registers only.
    unsafe impl Square for crate::cpu::sets::Avx2 {
        #[inline(always)]
        unsafe fn transpose(rows: &mut [__m256; 16]) {
            // SAFETY: the caller promises the instruction set.
            unsafe { transpose_eight(rows) }
        }
    }

    // SAFETY: registers only.
    unsafe impl Square for crate::cpu::sets::AvxVnni {
        #[inline(always)]
        unsafe fn transpose(rows: &mut [__m256; 16]) {
            // SAFETY: the caller promises the instruction set.
            unsafe { transpose_eight(rows) }
        }
    }
}

// SAFETY: registers only.
#[cfg(target_arch = "aarch64")]
unsafe impl Square for crate::cpu::sets::Neon {
    #[inline(always)]
    unsafe fn transpose(rows: &mut [std::arch::aarch64::float32x4_t; 16]) {
        use std::arch::aarch64::*;
        // SAFETY: every aarch64 processor has these instructions.
        unsafe {
            let even = vreinterpretq_f64_f32(vtrn1q_f32(rows[0], rows[1]));
            let odd = vreinterpretq_f64_f32(vtrn2q_f32(rows[0], rows[1]));
            let next_even = vreinterpretq_f64_f32(vtrn1q_f32(rows[2], rows[3]));
            let next_odd = vreinterpretq_f64_f32(vtrn2q_f32(rows[2], rows[3]));
            rows[0] = vreinterpretq_f32_f64(vtrn1q_f64(even, next_even));
            rows[1] = vreinterpretq_f32_f64(vtrn1q_f64(odd, next_odd));
            rows[2] = vreinterpretq_f32_f64(vtrn2q_f64(even, next_even));
            rows[3] = vreinterpretq_f32_f64(vtrn2q_f64(odd, next_odd));
        }
    }
}
