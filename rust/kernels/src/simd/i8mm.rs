//! NEON with the 8-bit matrix extension: `usdot` for one column, `usmmla` for pairs of columns. Both take unsigned weights.

use std::arch::aarch64::*;
use std::arch::asm;

use super::neon::{Dot, add_pair_products, common_operations, dot_operation, floats_of_halves, prefetch_line, shift};
use super::{Simd, operations};
use crate::cpu::sets::I8mm;

// SAFETY: every pointer is read or written for one vector.
unsafe impl Simd for I8mm {
    const SIGNED_ZERO: i32 = 0;

    common_operations!();
}

// SAFETY: every pointer is read or written for one vector.
unsafe impl Dot for I8mm {
    dot_operation!("usdot");
}

impl I8mm {
    /// Adds the products of two rows of 8 unsigned weights and two columns of 8 signed activations: lane `2 · row + column`.
    ///
    /// # Safety
    /// The processor has the instruction set, and the code is compiled for it.
    #[inline(always)]
    pub(crate) unsafe fn multiply(mut sums: int32x4_t, weights: uint8x16_t, activations: int8x16_t) -> int32x4_t {
        // SAFETY: the caller promises the instruction set; the instruction touches its operands only.
        unsafe {
            asm!(
                "usmmla {sums:v}.4s, {weights:v}.16b, {activations:v}.16b",
                sums = inout(vreg) sums,
                weights = in(vreg) weights,
                activations = in(vreg) activations,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        sums
    }
}
