//! Selection of the lanes that a kernel runs on.

#[cfg(target_arch = "x86_64")]
use super::avx2::Lanes256;
#[cfg(target_arch = "x86_64")]
use super::avx512::Lanes512;
use super::lanes::{Kernel, Lanes};
#[cfg(target_arch = "aarch64")]
use super::neon::Lanes128;
use super::portable::Portable;
use crate::cpu::Isa;
use crate::cpu::sets::*;

/// Runs the kernel compiled for `isa`.
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    #[cfg(target_arch = "x86_64")]
    {
        if let Some(set) = Avx512::of(isa) {
            return Lanes512::call(set, kernel);
        }
        if let Some(set) = Avx2::of(isa) {
            return Lanes256::call(set, kernel);
        }
    }
    #[cfg(target_arch = "aarch64")]
    if let Some(set) = Neon::of(isa) {
        return Lanes128::call(set, kernel);
    }
    let _ = isa;
    // Needs no function of its own: where it becomes part of the caller, the compiler knows more of its operands.
    kernel.run::<Portable>(Scalar::TOKEN)
}
