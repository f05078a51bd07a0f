//! The instructions of AMX, as assembly, since the compiler's functions for them are not stable, and whether they may be used.
//!
//! Operands are in Intel's order: `tdpbssd sums, activations, weights` adds, to the sum of token `m` and row `n`, the products
//! of the signed bytes `4k..4k + 4` of row `m` of the activations and the signed bytes `4n..4n + 4` of row `k` of the weights,
//! for all `k`; the weights of `tdpbsud` are unsigned. `tileload` and `tilestore` take the address of the first row and, as the
//! index register, the bytes from one row to the next. The registers are listed as clobbered, so that the compiler would
//! complain if it used them itself; it never does, and the configuration lives from `configure` to `release` in between.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv, CpuidResult};

use super::{ACTIVATION_STRIDE, Configuration, SUM_STRIDE, Software, TOKENS, Tiles, WEIGHT_STRIDE};

/// The unit of the processor.
pub struct Amx;

/// A product in one set of registers; they are those of `SUMS`, `ACTIVATIONS` and `WEIGHTS`.
macro_rules! product {
    ($dot:literal: $sums:tt, $activations:tt, $weights:tt; $from:expr, $panel:expr, $to:expr) => {
        asm!(
            concat!("tilezero ", $sums),
            concat!("tileloadd ", $activations, ", [{from} + {from_stride}*1]"),
            concat!("tileloadd ", $weights, ", [{panel} + {stride}*1]"),
            concat!($dot, " ", $sums, ", ", $activations, ", ", $weights),
            concat!("tilestored [{to} + {stride}*1], ", $sums),
            from = in(reg) $from,
            from_stride = in(reg) ACTIVATION_STRIDE,
            panel = in(reg) $panel,
            to = in(reg) $to,
            stride = in(reg) WEIGHT_STRIDE,
            out($sums) _,
            out($activations) _,
            out($weights) _,
            options(nostack, preserves_flags)
        )
    };
}

// One stride serves two tiles.
const _: () = assert!(WEIGHT_STRIDE == 4 * SUM_STRIDE);

// SAFETY: the instructions read and write the tiles of the configuration at the strides of this module.
unsafe impl Tiles for Amx {
    #[inline]
    unsafe fn configure(tokens: usize, columns: usize) {
        let configuration = Configuration::new(tokens, columns);
        // SAFETY: the caller promises the unit; without `nomem`, the configuration is in memory before it is read.
        unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const configuration, options(nostack, preserves_flags)) };
    }

    #[inline]
    unsafe fn release() {
        // SAFETY: the caller promises the unit.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    unsafe fn multiply<const SIGNED: bool, const SECOND: bool>(
        activations: *const i8,
        weights: *const u8,
        sums: *mut i32,
    ) {
        // SAFETY: the caller promises the unit, its configuration and the tiles.
        unsafe {
            match (SIGNED, SECOND) {
                (true, false) => product!("tdpbssd": "tmm0", "tmm2", "tmm4"; activations, weights, sums),
                (true, true) => product!("tdpbssd": "tmm1", "tmm3", "tmm5"; activations, weights, sums),
                (false, false) => product!("tdpbsud": "tmm0", "tmm2", "tmm4"; activations, weights, sums),
                (false, true) => product!("tdpbsud": "tmm1", "tmm3", "tmm5"; activations, weights, sums),
            }
        }
    }
}

/// Whether this process may use the unit: the processor has it, the system saves its registers and gives permission, and its
/// products are those of the software. If `LLAMACPU_ISA` names another set, nobody is asked.
///
/// Permission is the process's: its threads have it, and those of forked children.
pub fn usable() -> bool {
    let forced_away = std::env::var("LLAMACPU_ISA").is_ok_and(|name| !name.is_empty() && !name.starts_with("amx"));
    // SAFETY: in this order: the unit is there, the system saves it, the process may use it, and so it can be tried.
    !cfg!(miri) // which has no CPUID
        && !forced_away
        && present()
        && is_x86_feature_detected!("xsave")
        && unsafe { saved() }
        && permitted()
        && unsafe { correct() }
}

/// Whether the processor has tiles of the sizes used here, and products of bytes (CPUID leaves 7 and 29).
fn present() -> bool {
    /// CPUID, which older compilers take for unsafe.
    const CPUID: unsafe fn(u32, u32) -> CpuidResult = __cpuid_count;
    // SAFETY: processors with x86-64 have CPUID; a leaf that they do not have is answered, too.
    let (largest, features) = unsafe { (CPUID(0, 0).eax, CPUID(7, 0).edx) };
    if largest < 0x1d || features >> 24 & 1 == 0 || features >> 25 & 1 == 0 {
        return false;
    }
    // SAFETY: as above. Palette 1: bytes of a row and number of tiles in the halves of one register, rows in another.
    let palette = unsafe { CPUID(0x1d, 1) };
    palette.ebx & 0xffff >= 64 && palette.ebx >> 16 >= 8 && palette.ecx & 0xffff >= 16
}

/// Whether the system saves the configuration and the tiles of a thread: bits 17 and 18 of XCR0.
///
/// # Safety
/// The processor has XSAVE, which the system has enabled.
#[target_feature(enable = "xsave")]
unsafe fn saved() -> bool {
    // SAFETY: the caller promises XSAVE.
    unsafe { _xgetbv(0) >> 17 & 3 == 3 }
}

/// Asks the system for the permission to use tiles, which it also refuses if a thread's signal stack is too small for them.
fn permitted() -> bool {
    #[cfg(target_os = "linux")]
    {
        /// `ARCH_REQ_XCOMP_PERM`, for the state component of the tiles.
        const REQUEST: libc::c_long = 0x1023;
        const TILE_DATA: libc::c_long = 18;
        // SAFETY: the call takes two numbers and no memory.
        unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST, TILE_DATA) == 0 }
    }
    #[cfg(not(target_os = "linux"))]
    false
}

/// Whether the unit computes what the software does.
///
/// # Safety
/// The process may use the unit.
pub unsafe fn correct() -> bool {
    // SAFETY: the caller promises the unit.
    unsafe { equal::<true, false>() && equal::<true, true>() && equal::<false, false>() && equal::<false, true>() }
}

/// `correct`, for one kind of weights and set of registers.
///
/// # Safety
/// As for `correct`.
unsafe fn equal<const SIGNED: bool, const SECOND: bool>() -> bool {
    let byte = |at: usize| (at * at * 31 + at * 7 + at / 5) as u8;
    let activations: [i8; TOKENS * ACTIVATION_STRIDE] = std::array::from_fn(|at| byte(at) as i8);
    let weights: [u8; 8 * WEIGHT_STRIDE] = std::array::from_fn(|at| byte(at + 1000));
    [(16, 32), (16, 16), (5, 32), (1, 16)].into_iter().all(|(tokens, columns)| {
        let (mut found, mut expected) = ([-1; TOKENS * SUM_STRIDE], [-1; TOKENS * SUM_STRIDE]);
        // SAFETY: the caller promises the unit; the arrays hold the largest tiles.
        unsafe {
            Amx::configure(tokens, columns);
            Amx::multiply::<SIGNED, SECOND>(activations.as_ptr(), weights.as_ptr(), found.as_mut_ptr());
            Amx::release();
            Software::configure(tokens, columns);
            Software::multiply::<SIGNED, SECOND>(activations.as_ptr(), weights.as_ptr(), expected.as_mut_ptr());
            Software::release();
        }
        found == expected
    })
}
