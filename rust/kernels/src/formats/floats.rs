//! Plain numbers: F32, F16, BF16, little-endian.

use half::{bf16, f16};

/// F32 to numbers.
pub(crate) fn f32_from_bytes(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<4>().0.iter().zip(out) {
        *out = f32::from_le_bytes(*bytes);
    }
}

/// Numbers to F32.
pub(crate) fn f32_to_bytes(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<4>().0) {
        *out = value.to_le_bytes();
    }
}

/// F16 to numbers.
pub(crate) fn f16_from_bytes(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f16::from_le_bytes(*bytes).to_f32();
    }
}

/// Numbers to F16, rounded to nearest, ties to even.
pub(crate) fn f16_to_bytes(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = f16::from_f32(*value).to_le_bytes();
    }
}

/// BF16 (the upper half of an F32) to numbers.
pub(crate) fn bf16_from_bytes(bytes: &[u8], out: &mut [f32]) {
    for (bytes, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *out = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
    }
}

/// Numbers to BF16, rounded to nearest, ties to even.
pub(crate) fn bf16_to_bytes(values: &[f32], out: &mut [u8]) {
    for (value, out) in values.iter().zip(out.as_chunks_mut::<2>().0) {
        *out = bf16::from_f32(*value).to_le_bytes();
    }
}
