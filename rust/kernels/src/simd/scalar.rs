//! Portable code for every processor; the compiler vectorizes it as far as the target's baseline allows.

use super::Simd;
#[cfg(target_arch = "x86_64")]
use super::Stored;
use crate::cpu::sets::Scalar;
use crate::formats::half_to_float;
use crate::math::fma;

#[inline(always)]
fn lanes(of: impl Fn(usize) -> f32) -> [f32; 16] {
    std::array::from_fn(of)
}

/// `fma` of 16 lanes; a separate function, so that kernels stay small.
#[inline(never)]
fn fma_lanes(a: &[f32; 16], b: &[f32; 16], c: &mut [f32; 16]) {
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        *c = fma(*a, *b, *c);
    }
}

/// Adds the products of one group; a separate function, so that kernels stay small.
#[inline(never)]
fn add_group(sum: &mut [i32; 16], weights: &[u8; 64], activations: [i8; 4]) {
    let [a, b, c, d] = activations.map(i32::from);
    for (sum, weights) in sum.iter_mut().zip(weights.as_chunks::<4>().0) {
        let [w, x, y, z] = weights.map(i32::from);
        *sum += w * a + x * b + (y * c + z * d);
    }
}

// SAFETY: every pointer is read or written for one vector.
unsafe impl Simd for Scalar {
    const LANES: usize = 16;
    const SIGNED_ZERO: i32 = 0;
    type Bytes = [u8; 64];
    type Sums = [i32; 16];
    type Floats = [f32; 16];
    type Scale = [i32; 16];
    type Integers = [i32; 16];

    #[inline(always)]
    unsafe fn bytes(at: *const u8) -> [u8; 64] {
        // SAFETY: the caller promises 64 readable bytes.
        unsafe { at.cast::<[u8; 64]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_bytes(at: *mut u8, value: [u8; 64]) {
        // SAFETY: the caller promises 64 writable bytes.
        unsafe { at.cast::<[u8; 64]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn mask(value: [u8; 64], mask: u8) -> [u8; 64] {
        value.map(|byte| byte & mask)
    }

    #[inline(always)]
    unsafe fn merge(low: [u8; 64], high: [u8; 64], mask: u8) -> [u8; 64] {
        std::array::from_fn(|i| low[i] | high[i] & mask)
    }

    #[inline(always)]
    unsafe fn right<const N: u32>(value: [u8; 64]) -> [u8; 64] {
        value.map(|byte| byte >> N)
    }

    #[inline(always)]
    unsafe fn left<const N: u32>(value: [u8; 64]) -> [u8; 64] {
        value.map(|byte| byte << N)
    }

    #[inline(always)]
    unsafe fn table(at: *const u8) -> [u8; 64] {
        // SAFETY: the caller promises a table of 16 bytes.
        let table = unsafe { at.cast::<[u8; 16]>().read_unaligned() };
        std::array::from_fn(|i| table[i % 16])
    }

    #[inline(always)]
    unsafe fn lookup(table: [u8; 64], index: [u8; 64]) -> [u8; 64] {
        index.map(|index| table[usize::from(index & 15)])
    }

    #[inline(always)]
    unsafe fn zero() -> [f32; 16] {
        [0.0; 16]
    }

    #[inline(always)]
    unsafe fn floats(at: *const f32) -> [f32; 16] {
        // SAFETY: the caller promises 16 readable floats.
        unsafe { at.cast::<[f32; 16]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_floats(at: *mut f32, value: [f32; 16]) {
        // SAFETY: the caller promises room for 16 floats.
        unsafe { at.cast::<[f32; 16]>().write_unaligned(value) }
    }

    #[inline(always)]
    unsafe fn halves(at: *const u8) -> [f32; 16] {
        // SAFETY: the caller promises 16 f16 values.
        let bits = unsafe { at.cast::<[[u8; 2]; 16]>().read_unaligned() };
        lanes(|i| half_to_float(u16::from_le_bytes(bits[i])))
    }

    #[inline(always)]
    unsafe fn brains(at: *const u8) -> [f32; 16] {
        // SAFETY: the caller promises 16 bf16 values.
        let bits = unsafe { at.cast::<[[u8; 2]; 16]>().read_unaligned() };
        lanes(|i| f32::from_bits(u32::from(u16::from_le_bytes(bits[i])) << 16))
    }

    #[inline(always)]
    unsafe fn unscaled() -> [i32; 16] {
        [1; 16]
    }

    #[inline(always)]
    unsafe fn signed_scale(at: *const u8) -> [i32; 16] {
        // SAFETY: the caller promises 16 bytes.
        unsafe { at.cast::<[i8; 16]>().read_unaligned() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn unsigned_scale(at: *const u8) -> [i32; 16] {
        // SAFETY: the caller promises 16 bytes.
        unsafe { at.cast::<[u8; 16]>().read_unaligned() }.map(i32::from)
    }

    #[inline(always)]
    unsafe fn low_nibble_scale(at: *const u8) -> [i32; 16] {
        // SAFETY: the caller promises 16 bytes.
        unsafe { at.cast::<[u8; 16]>().read_unaligned() }.map(|byte| i32::from(byte & 15))
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> [f32; 16] {
        [value; 16]
    }

    #[inline(always)]
    unsafe fn mul(a: [f32; 16], b: [f32; 16]) -> [f32; 16] {
        lanes(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn fma(a: [f32; 16], b: [f32; 16], mut c: [f32; 16]) -> [f32; 16] {
        fma_lanes(&a, &b, &mut c);
        c
    }

    #[inline(always)]
    unsafe fn fnma(a: [f32; 16], b: [f32; 16], mut c: [f32; 16]) -> [f32; 16] {
        fma_lanes(&a.map(|a| -a), &b, &mut c);
        c
    }

    #[inline(always)]
    unsafe fn pairs(first: *const u8, second: *const u8) -> [i32; 16] {
        // SAFETY: the caller promises 16 bytes at each pointer.
        let (low, high) = unsafe { (Self::unsigned_scale(first), Self::unsigned_scale(second)) };
        std::array::from_fn(|i| low[i] | high[i] << 16)
    }

    #[inline(always)]
    unsafe fn high_nibble_pairs(first: *const u8, second: *const u8) -> [i32; 16] {
        // SAFETY: the caller promises 16 bytes at each pointer.
        unsafe { Self::pairs(first, second) }.map(|pair| pair >> 4 & 0x000f_000f)
    }

    #[inline(always)]
    unsafe fn add_pairs(total: [i32; 16], pairs: [i32; 16], sums: *const i32) -> [i32; 16] {
        // SAFETY: the caller promises a readable value.
        let sums = unsafe { *sums };
        let (low, high) = (sums << 16 >> 16, sums >> 16);
        std::array::from_fn(|i| total[i] + (pairs[i] & 0xffff) * low + (pairs[i] >> 16) * high)
    }

    #[inline(always)]
    unsafe fn empty() -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn begin(start: *const i32) -> [i32; 16] {
        // SAFETY: the caller promises a readable value.
        [unsafe { *start }; 16]
    }

    #[inline(always)]
    unsafe fn add_products(_maximum: u32, mut sum: [i32; 16], weights: [u8; 64], activations: *const i32) -> [i32; 16] {
        // SAFETY: the caller promises 4 readable bytes.
        add_group(&mut sum, &weights, unsafe { activations.cast::<[i8; 4]>().read_unaligned() });
        sum
    }

    #[inline(always)]
    unsafe fn carry(_maximum: u32, _group: usize, sum: [i32; 16], _scale: [i32; 16]) -> [i32; 16] {
        sum
    }

    #[inline(always)]
    unsafe fn finish(sum: [i32; 16], _start: *const i32) -> [f32; 16] {
        lanes(|i| sum[i] as f32)
    }

    #[inline(always)]
    unsafe fn integers() -> [i32; 16] {
        [0; 16]
    }

    #[inline(always)]
    unsafe fn add_scaled(total: [i32; 16], sum: [i32; 16], scale: [i32; 16]) -> [i32; 16] {
        std::array::from_fn(|i| total[i] + sum[i] * scale[i])
    }

    #[inline(always)]
    unsafe fn add_start(total: [i32; 16], _start: *const i32, _scale: [i32; 16]) -> [i32; 16] {
        total
    }

    #[inline(always)]
    unsafe fn to_floats(value: [i32; 16]) -> [f32; 16] {
        lanes(|i| value[i] as f32)
    }

    #[inline(always)]
    unsafe fn prefetch_far(_at: *const u8) {}

    #[inline(always)]
    unsafe fn prefetch_near(_at: *const u8) {}
}

// SAFETY: every pointer is read for one vector.
#[cfg(target_arch = "x86_64")]
unsafe impl Stored for Scalar {
    const FOURS: bool = false;

    #[inline(always)]
    unsafe fn loaded(at: *const i32) -> [i32; 16] {
        // SAFETY: the caller promises 16 readable integers.
        unsafe { at.cast::<[i32; 16]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn plus(value: [i32; 16], start: *const i32) -> [i32; 16] {
        // SAFETY: the caller promises a readable integer.
        let start = unsafe { *start };
        value.map(|value| value + start)
    }

    #[inline(always)]
    unsafe fn scale_floats(scale: [i32; 16]) -> [f32; 16] {
        scale.map(|scale| scale as f32)
    }
}
