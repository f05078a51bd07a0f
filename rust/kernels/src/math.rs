//! Sixteen `f32` lanes on every instruction set, with the same bits on each.
//!
//! A kernel is written once, generic over [`Lanes`], and compiled once per instruction set by [`dispatch`]. Equal bits
//! follow from three rules: a fused multiply-add is exact everywhere ([`fma`]); every kernel fixes the order of its sums
//! in terms of 16 lanes; and only operations that IEEE 754 defines to the last bit are used. (The only thing left
//! unspecified is which of several NaNs a sum returns.)

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod circle;
mod dispatch;
mod double_double;
pub mod doubles;
mod functions;
pub(crate) mod fused;
mod half_floats;
mod lanes;
#[cfg(target_arch = "aarch64")]
mod neon;
mod portable;
mod prefetch;

pub(crate) use circle::LARGEST_ANGLE;
pub use circle::sine_and_cosine;
pub use dispatch::dispatch;
pub use double_double::{ln, power};
pub use functions::{exp, exp2, silu};
pub(crate) use functions::{gelu, gelu_tanh, sigmoid, tanh};
pub use fused::fma;
pub use half_floats::{float_to_half, half_to_float};
pub use lanes::{Kernel, LANES, Lanes, MAGIC};
pub(crate) use prefetch::{prefetch, prefetch_soon};
