//! Lanes as four 128-bit registers.

use std::arch::aarch64::*;
use std::arch::asm;

use super::lanes::{LANES, Lanes};
use crate::cpu::sets::Neon;
use crate::simd::Simd;
use crate::simd::neon::Dot;

/// Sixteen floats, the first four in the first register.
#[derive(Clone, Copy)]
pub(crate) struct Lanes128([float32x4_t; 4]);

/// Wraps intrinsics, whose features the token guarantees.
macro_rules! vector {
    ($value:expr) => {
        // SAFETY: the token or the value of this type that every function takes exists only where the processor has the
        // features; pointers come from references to arrays of the size that is read or written.
        unsafe { $value }
    };
}

/// Applies an intrinsic to the registers of its operands.
macro_rules! each {
    ($intrinsic:ident($($operand:expr),*)) => {
        vector!(Lanes128([
            $intrinsic($($operand.0[0]),*),
            $intrinsic($($operand.0[1]),*),
            $intrinsic($($operand.0[2]),*),
            $intrinsic($($operand.0[3]),*),
        ]))
    };
}

/// Rounds two vectors to f16, to nearest, ties to even.
///
/// # Safety
/// None beyond what every aarch64 processor has.
#[inline(always)]
unsafe fn halves_of_floats(low: float32x4_t, high: float32x4_t) -> uint16x8_t {
    let halves;
    // SAFETY: instructions of NEON that touch their operands only. (As intrinsics they are newer than Rust 1.89.)
    unsafe {
        asm!(
            "fcvtn {halves:v}.4h, {low:v}.4s",
            "fcvtn2 {halves:v}.8h, {high:v}.4s",
            halves = out(vreg) halves,
            low = in(vreg) low,
            high = in(vreg) high,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    halves
}

/// `a > b ? a : b` in each lane.
#[inline(always)]
fn larger(a: float32x4_t, b: float32x4_t) -> float32x4_t {
    vector!(vbslq_f32(vcgtq_f32(a, b), a, b))
}

impl Lanes for Lanes128 {
    type Set = Neon;
    type Integers = [int32x4_t; 4];
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(_set: Self::Set, value: f32) -> Self {
        Self([vector!(vdupq_n_f32(value)); 4])
    }

    #[inline(always)]
    fn load(_set: Self::Set, values: &[f32; LANES]) -> Self {
        let from = values.as_ptr();
        vector!(Self([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]))
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        for (to, register) in to.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            vector!(vst1q_f32(to.as_mut_ptr(), register));
        }
    }

    #[inline(always)]
    fn load_floats(_set: Self::Set, bytes: &[u8; 4 * LANES]) -> Self {
        let from: *const f32 = bytes.as_ptr().cast();
        vector!(Self([vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]))
    }

    #[inline(always)]
    fn load_halves(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        let from = bytes.as_ptr();
        vector!(Self([
            Neon::halves(from),
            Neon::halves(from.add(8)),
            Neon::halves(from.add(16)),
            Neon::halves(from.add(24)),
        ]))
    }

    #[inline(always)]
    fn load_brains(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        let from = bytes.as_ptr();
        vector!(Self([
            Neon::brains(from),
            Neon::brains(from.add(8)),
            Neon::brains(from.add(16)),
            Neon::brains(from.add(24)),
        ]))
    }

    #[inline(always)]
    fn store_floats(self, to: &mut [u8; 4 * LANES]) {
        for (to, register) in to.as_chunks_mut::<16>().0.iter_mut().zip(self.0) {
            vector!(vst1q_f32(to.as_mut_ptr().cast(), register));
        }
    }

    #[inline(always)]
    fn store_halves(self, to: &mut [u8; 2 * LANES]) {
        let to: *mut u16 = to.as_mut_ptr().cast();
        vector!({
            vst1q_u16(to, halves_of_floats(self.0[0], self.0[1]));
            vst1q_u16(to.add(8), halves_of_floats(self.0[2], self.0[3]));
        });
    }

    #[inline(always)]
    fn store_low_bytes(self, to: &mut [u8; LANES]) {
        vector!({
            let [first, second, third, fourth] = self.0.map(|register| vreinterpretq_u16_f32(register));
            let low = vreinterpretq_u8_u16(vuzp1q_u16(first, second));
            let high = vreinterpretq_u8_u16(vuzp1q_u16(third, fourth));
            vst1q_u8(to.as_mut_ptr(), vuzp1q_u8(low, high));
        });
    }

    #[inline(always)]
    fn load_signed_bytes(_set: Self::Set, bytes: &[u8; LANES]) -> Self {
        vector!({
            let all = vld1q_s8(bytes.as_ptr().cast());
            let (low, high) = (vmovl_s8(vget_low_s8(all)), vmovl_high_s8(all));
            Self([
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))),
                vcvtq_f32_s32(vmovl_high_s16(low)),
                vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))),
                vcvtq_f32_s32(vmovl_high_s16(high)),
            ])
        })
    }

    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        each!(vfmaq_f32(addend, self, factor))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each!(vaddq_f32(self, other))
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each!(vsubq_f32(self, other))
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each!(vmulq_f32(self, other))
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each!(vdivq_f32(self, other))
    }

    /// Not `fmax`, which would return NaN if either is NaN.
    #[inline(always)]
    fn max(self, other: Self) -> Self {
        other.select_below(self, self, other)
    }

    /// Not `fmin`, which would return NaN if either is NaN.
    #[inline(always)]
    fn min(self, other: Self) -> Self {
        self.select_below(other, self, other)
    }

    #[inline(always)]
    fn select_below(self, bound: Self, yes: Self, no: Self) -> Self {
        let mut chosen = no;
        for (i, chosen) in chosen.0.iter_mut().enumerate() {
            *chosen = vector!(vbslq_f32(vcltq_f32(self.0[i], bound.0[i]), yes.0[i], no.0[i]));
        }
        chosen
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        let mut powers = self;
        for power in &mut powers.0 {
            *power = vector!({
                let exponent = vshlq_n_u32::<23>(vreinterpretq_u32_f32(*power));
                vreinterpretq_f32_u32(vaddq_u32(exponent, vdupq_n_u32(1.0f32.to_bits())))
            });
        }
        powers
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        vector!({
            let four = vaddq_f32(vaddq_f32(self.0[0], self.0[2]), vaddq_f32(self.0[1], self.0[3]));
            let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
            vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
        })
    }

    #[inline(always)]
    fn largest(self) -> f32 {
        let registers = self.0;
        let halves = [larger(registers[0], registers[2]), larger(registers[1], registers[3])];
        let mut four = [0.0; 4];
        vector!(vst1q_f32(four.as_mut_ptr(), larger(halves[0], halves[1])));
        for step in [2, 1] {
            for lane in 0..step {
                four[lane] = if four[lane] > four[lane + step] { four[lane] } else { four[lane + step] };
            }
        }
        four[0]
    }

    #[inline(always)]
    fn integers(_set: Self::Set, _factors: i32) -> Self::Integers {
        [vector!(vdupq_n_s32(0)); 4]
    }

    #[inline(always)]
    fn dot4(mut sums: Self::Integers, bytes: &[u8; 4 * LANES], quad: i32) -> Self::Integers {
        vector!({
            let quad = vdupq_n_s32(quad);
            for (sum, bytes) in sums.iter_mut().zip(bytes.as_chunks::<16>().0) {
                *sum = Neon::dot::<0, 0, 1>(*sum, Neon::offset(255, vld1q_u8(bytes.as_ptr())), quad);
            }
        });
        sums
    }

    #[inline(always)]
    fn dot2(mut sums: Self::Integers, words: &[u8; 4 * LANES], pair: i32) -> Self::Integers {
        vector!({
            let pair = vreinterpretq_s16_s32(vdupq_n_s32(pair));
            for (sum, words) in sums.iter_mut().zip(words.as_chunks::<16>().0) {
                let words = vld1q_s16(words.as_ptr().cast());
                let low = vmull_s16(vget_low_s16(words), vget_low_s16(pair));
                *sum = vaddq_s32(*sum, vpaddq_s32(low, vmull_high_s16(words, pair)));
            }
        });
        sums
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, to: &mut [i32; LANES]) {
        vector!({
            for (to, (first, second)) in to.as_chunks_mut::<4>().0.iter_mut().zip(first.0.into_iter().zip(second.0)) {
                let pairs = vsliq_n_s32::<16>(vreinterpretq_s32_f32(first), vreinterpretq_s32_f32(second));
                vst1q_s32(to.as_mut_ptr(), pairs);
            }
        });
    }

    #[inline(always)]
    fn from_integers(values: Self::Integers) -> Self {
        Self(vector!([
            vcvtq_f32_s32(values[0]),
            vcvtq_f32_s32(values[1]),
            vcvtq_f32_s32(values[2]),
            vcvtq_f32_s32(values[3]),
        ]))
    }
}
