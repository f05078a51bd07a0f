//! Plain floats: F32, F16, BF16, little-endian.

use half::{bf16, f16};

/// Converts F32 bytes to f32 values.
pub(crate) fn f32_from_bytes(bytes: &[u8], out: &mut [f32]) {
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
pub(crate) fn f16_from_bytes(bytes: &[u8], out: &mut [f32]) {
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
pub(crate) fn bf16_from_bytes(bytes: &[u8], out: &mut [f32]) {
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
