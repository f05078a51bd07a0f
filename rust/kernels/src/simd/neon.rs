//! NEON with the dot product extension: 4 rows in a vector, four vectors per group.
//!
//! `sdot` only takes signed bytes, so 128 is first subtracted from weights whose values exceed 127, as with AVX2. The
//! intrinsics for the dot product are not in stable Rust yet, nor were those for f16 in 1.89; both are written as assembly.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{Simd, operations};
use crate::cpu::sets::Neon;

/// The operations that the kernels for Arm require beyond [`Simd`]: their specific vector types, and activations that are
/// multiplied straight from a part of a vector, without a broadcast.
///
/// # Safety
/// As for [`Simd`].
pub(crate) unsafe trait Dot:
    Simd<Bytes = uint8x16_t, Sums = int32x4_t, Integers = int32x4_t, Floats = float32x4_t>
{
    /// Adds the products of 4 bytes per row, as returned by `offset`, and 4 signed bytes: element `GROUP · COLUMNS + COLUMN`
    /// of a row of vectors, where `activations` is the vector that contains it.
    unsafe fn dot<const GROUP: usize, const COLUMN: usize, const COLUMNS: usize>(
        sum: int32x4_t,
        weights: uint8x16_t,
        activations: int32x4_t,
    ) -> int32x4_t;

    /// Weights of at most `maximum` as `dot` takes them: minus `SIGNED_ZERO` if they can exceed 127.
    #[inline(always)]
    unsafe fn offset(maximum: u32, weights: uint8x16_t) -> uint8x16_t {
        if maximum <= 127 || Self::SIGNED_ZERO == 0 {
            return weights;
        }
        // SAFETY: every aarch64 processor has this instruction.
        unsafe { veorq_u8(weights, vdupq_n_u8(128)) }
    }
}

/// Shifts bytes by the constant `N`, 1 to 7.
macro_rules! shift {
    ($shift:ident, $value:ident) => {
        match N {
            1 => $shift::<1>($value),
            2 => $shift::<2>($value),
            3 => $shift::<3>($value),
            4 => $shift::<4>($value),
            5 => $shift::<5>($value),
            6 => $shift::<6>($value),
            _ => $shift::<7>($value),
        }
    };
}
pub(crate) use shift;

/// Converts four f16 values exactly, like the portable conversion.
///
/// # Safety
/// None beyond what every aarch64 processor has.
#[inline(always)]
pub(crate) unsafe fn floats_of_halves(halves: uint16x4_t) -> float32x4_t {
    let floats;
    // SAFETY: an instruction of NEON that touches its operands only.
    unsafe {
        asm!(
            "fcvtl {floats:v}.4s, {halves:v}.4h",
            floats = lateout(vreg) floats,
            halves = in(vreg) halves,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    floats
}

/// Adds both products of pairs of 16 bits to each lane.
///
/// # Safety
/// None beyond what every aarch64 processor has.
#[inline(always)]
pub(crate) unsafe fn add_pair_products(total: int32x4_t, a: int32x4_t, b: int32x4_t) -> int32x4_t {
    // SAFETY: every aarch64 processor has these instructions.
    unsafe {
        let (a, b) = (vreinterpretq_s16_s32(a), vreinterpretq_s16_s32(b));
        let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
        vaddq_s32(total, vpaddq_s32(low, vmull_high_s16(a, b)))
    }
}

/// Prefetches a cache line; `$kind` says into which cache.
macro_rules! prefetch_line {
    ($kind:literal, $at:expr) => {
        asm!(concat!("prfm ", $kind, ", [{at}]"), at = in(reg) $at, options(readonly, nostack, preserves_flags))
    };
}
pub(crate) use prefetch_line;

/// The operations that both NEON sets share: everything but the sums.
macro_rules! common_operations {
    () => {
        const LANES: usize = 4;
        type Bytes = uint8x16_t;
        type Sums = int32x4_t;
        type Floats = float32x4_t;
        type Scale = int32x4_t;
        type Integers = int32x4_t;

        operations! {
            fn bytes(at: *const u8) -> uint8x16_t { vld1q_u8(at) }
            fn store_bytes(at: *mut u8, value: uint8x16_t) { vst1q_u8(at, value) }
            fn table(at: *const u8) -> uint8x16_t { vld1q_u8(at) }
            fn floats(at: *const f32) -> float32x4_t { vld1q_f32(at) }
            fn store_floats(at: *mut f32, value: float32x4_t) { vst1q_f32(at, value) }
            fn halves(at: *const u8) -> float32x4_t { floats_of_halves(vld1_u16(at.cast())) }
            fn brains(at: *const u8) -> float32x4_t {
                vreinterpretq_f32_u32(vshll_n_u16::<16>(vld1_u16(at.cast())))
            }
            fn unscaled() -> int32x4_t { vdupq_n_s32(1) }
            fn signed_scale(at: *const u8) -> int32x4_t {
                vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(at.cast::<u32>().read_unaligned())))))
            }
            fn unsigned_scale(at: *const u8) -> int32x4_t {{
                let bytes = vreinterpret_u8_u32(vdup_n_u32(at.cast::<u32>().read_unaligned()));
                vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
            }}
            fn low_nibble_scale(at: *const u8) -> int32x4_t { vandq_s32(Self::unsigned_scale(at), vdupq_n_s32(15)) }
            fn mask(value: uint8x16_t, mask: u8) -> uint8x16_t { vandq_u8(value, vdupq_n_u8(mask)) }
            fn merge(low: uint8x16_t, high: uint8x16_t, mask: u8) -> uint8x16_t {
                vbslq_u8(vdupq_n_u8(mask), high, low)
            }
            // Byte shifts drop the bits that the caller would mask off, so that the compiler can omit the masks.
            fn right<const N: u32>(value: uint8x16_t) -> uint8x16_t { shift!(vshrq_n_u8, value) }
            fn left<const N: u32>(value: uint8x16_t) -> uint8x16_t { shift!(vshlq_n_u8, value) }
            fn lookup(table: uint8x16_t, index: uint8x16_t) -> uint8x16_t { vqtbl1q_u8(table, index) }
            fn zero() -> float32x4_t { vdupq_n_f32(0.0) }
            fn splat(value: f32) -> float32x4_t { vdupq_n_f32(value) }
            fn mul(a: float32x4_t, b: float32x4_t) -> float32x4_t { vmulq_f32(a, b) }
            fn fma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmaq_f32(c, a, b) }
            fn fnma(a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t { vfmsq_f32(c, a, b) }
            fn finish(sum: int32x4_t, _start: *const i32) -> float32x4_t { vcvtq_f32_s32(sum) }
            fn pairs(first: *const u8, second: *const u8) -> int32x4_t {
                vorrq_s32(Self::unsigned_scale(first), vshlq_n_s32::<16>(Self::unsigned_scale(second)))
            }
            fn high_nibble_pairs(first: *const u8, second: *const u8) -> int32x4_t {
                vandq_s32(vshrq_n_s32::<4>(Self::pairs(first, second)), vdupq_n_s32(0x000f_000f))
            }
            fn add_pairs(total: int32x4_t, pairs: int32x4_t, sums: *const i32) -> int32x4_t {
                add_pair_products(total, pairs, vld1q_dup_s32(sums))
            }
            fn empty() -> int32x4_t { vdupq_n_s32(0) }
            fn integers() -> int32x4_t { vdupq_n_s32(0) }
            fn add_scaled(total: int32x4_t, sum: int32x4_t, scale: int32x4_t) -> int32x4_t { vmlaq_s32(total, sum, scale) }
            fn to_floats(value: int32x4_t) -> float32x4_t { vcvtq_f32_s32(value) }
            fn begin(start: *const i32) -> int32x4_t { vld1q_dup_s32(start) }
            fn prefetch_far(at: *const u8) { prefetch_line!("pldl2keep", at) }
            fn prefetch_near(at: *const u8) { prefetch_line!("pldl1keep", at) }
            fn add_products(maximum: u32, sum: int32x4_t, weights: uint8x16_t, activations: *const i32) -> int32x4_t {
                Self::dot::<0, 0, 1>(sum, Self::offset(maximum, weights), vld1q_dup_s32(activations))
            }
        }

        #[inline(always)]
        unsafe fn carry(_maximum: u32, _group: usize, sum: int32x4_t, _scale: int32x4_t) -> int32x4_t {
            sum
        }

        #[inline(always)]
        unsafe fn add_start(total: int32x4_t, _start: *const i32, _scale: int32x4_t) -> int32x4_t {
            total
        }
    };
}
pub(crate) use common_operations;

/// A dot product of four bytes per lane with one element of the activations, by the named instruction.
macro_rules! dot_operation {
    ($instruction:literal) => {
        #[inline(always)]
        unsafe fn dot<const GROUP: usize, const COLUMN: usize, const COLUMNS: usize>(
            mut sum: int32x4_t,
            weights: uint8x16_t,
            activations: int32x4_t,
        ) -> int32x4_t {
            // SAFETY: the caller promises the instruction set; the instruction touches its operands only.
            unsafe {
                asm!(
                    concat!($instruction, " {sum:v}.4s, {weights:v}.16b, {activations:v}.4b[{lane}]"),
                    sum = inout(vreg) sum,
                    weights = in(vreg) weights,
                    activations = in(vreg) activations,
                    lane = const (GROUP * COLUMNS + COLUMN) % 4,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
            sum
        }
    };
}
pub(crate) use dot_operation;

// SAFETY: every pointer is read or written for one vector.
unsafe impl Simd for Neon {
    const SIGNED_ZERO: i32 = 128;

    common_operations!();
}

// SAFETY: every pointer is read or written for one vector.
unsafe impl Dot for Neon {
    dot_operation!("sdot");
}
