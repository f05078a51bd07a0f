//! Plain floats: F32, F16, BF16, little-endian.

use half::{bf16, f16};

use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch};

/// A conversion to f32, for the baseline and for an instruction set.
pub(crate) type Conversions = (fn(&[u8], &mut [f32]), fn(Isa, &[u8], &mut [f32]));

/// F32.
pub(crate) const SINGLES: Conversions = (f32_from_bytes, |_, bytes, out| f32_from_bytes(bytes, out));
/// F16.
pub(crate) const HALVES: Conversions = (f16_from_bytes, |isa, bytes, out| dispatch(isa, Halves { bytes, out }));
/// BF16.
pub(crate) const BRAINS: Conversions = (bf16_from_bytes, |isa, bytes, out| dispatch(isa, Brains { bytes, out }));

struct Halves<'a> {
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Halves<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let (vectors, rest) = self.bytes.as_chunks::<{ 2 * LANES }>();
        let (whole, last) = self.out.as_chunks_mut::<LANES>();
        for (bytes, out) in vectors.iter().zip(whole) {
            L::load_halves(set, bytes).store(out);
        }
        f16_from_bytes(rest, last);
    }
}

struct Brains<'a> {
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl Kernel for Brains<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _set: L::Set) {
        bf16_from_bytes(self.bytes, self.out);
    }
}

/// Converts F32 bytes to f32 values.
fn f32_from_bytes(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// Converts f32 values to F32 bytes.
#[inline(always)]
pub(crate) fn f32_to_bytes(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<4>().0) {
        *out = value.to_le_bytes();
    }
}

/// Converts F16 bytes to f32 values.
fn f16_from_bytes(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f16::from_le_bytes(*bytes).to_f32();
    }
}

/// Converts f32 values to F16 bytes, rounded to nearest, ties to even.
pub(crate) fn f16_to_bytes(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = f16::from_f32(*value).to_le_bytes();
    }
}

/// Converts BF16 (the upper half of an F32) bytes to f32 values.
#[inline(always)]
fn bf16_from_bytes(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// Converts f32 values to BF16 bytes, rounded to nearest, ties to even.
#[inline(always)]
pub(crate) fn bf16_to_bytes(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = bf16::from_f32(*value).to_le_bytes();
    }
}
