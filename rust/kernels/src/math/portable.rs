//! Lanes in plain Rust: the definition of every operation, and the code for processors without a supported vector extension.
//! On aarch64 without the dot product extension the compiler turns it into NEON.

use super::fused::fma;
use super::half_floats::{float_to_half, half_to_float};
use super::lanes::{LANES, Lanes};
use crate::cpu::sets::Scalar;

/// Sixteen floats.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; LANES]);

#[inline(always)]
fn each(function: impl Fn(usize) -> f32) -> Portable {
    let mut values = [0.0; LANES];
    for (lane, value) in values.iter_mut().enumerate() {
        *value = function(lane);
    }
    Portable(values)
}

/// `fma` of all lanes; a function of its own where it is emulated, so that kernels stay small.
#[cfg_attr(any(target_arch = "aarch64", target_feature = "fma"), inline(always))]
#[cfg_attr(not(any(target_arch = "aarch64", target_feature = "fma")), inline(never))]
fn fma_lanes(a: &[f32; LANES], b: &[f32; LANES], c: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|lane| fma(a[lane], b[lane], c[lane]))
}

/// Half-precision floats to floats; a function of its own, so that kernels stay small.
#[inline(never)]
fn halves_to_floats(bytes: &[u8; 2 * LANES]) -> [f32; LANES] {
    let (values, _) = bytes.as_chunks::<2>();
    std::array::from_fn(|lane| half_to_float(u16::from_le_bytes(values[lane])))
}

/// Adds the products of four bytes each; a function of its own, so that kernels stay small.
#[inline(never)]
fn add_products(sums: &mut [i32; LANES], bytes: &[u8; 4 * LANES], quad: i32) {
    let (groups, _) = bytes.as_chunks::<4>();
    let factors = quad.to_le_bytes().map(u8::cast_signed);
    for (sum, group) in sums.iter_mut().zip(groups) {
        for (byte, factor) in group.iter().zip(factors) {
            *sum += (i32::from(*byte) - 128) * i32::from(factor);
        }
    }
}

impl Lanes for Portable {
    type Set = Scalar;
    type Integers = [i32; LANES];
    const MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(_set: Self::Set, value: f32) -> Self {
        Self([value; LANES])
    }

    #[inline(always)]
    fn load(_set: Self::Set, values: &[f32; LANES]) -> Self {
        Self(*values)
    }

    #[inline(always)]
    fn store(self, to: &mut [f32; LANES]) {
        *to = self.0;
    }

    #[inline(always)]
    fn load_floats(_set: Self::Set, bytes: &[u8; 4 * LANES]) -> Self {
        let (values, _) = bytes.as_chunks::<4>();
        each(|lane| f32::from_le_bytes(values[lane]))
    }

    #[inline(always)]
    fn load_halves(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        Self(halves_to_floats(bytes))
    }

    #[inline(always)]
    fn load_brains(_set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self {
        let (values, _) = bytes.as_chunks::<2>();
        each(|lane| f32::from_bits(u32::from(u16::from_le_bytes(values[lane])) << 16))
    }

    #[inline(always)]
    fn store_floats(self, to: &mut [u8; 4 * LANES]) {
        for (to, value) in to.as_chunks_mut::<4>().0.iter_mut().zip(self.0) {
            *to = value.to_le_bytes();
        }
    }

    #[inline(always)]
    fn store_halves(self, to: &mut [u8; 2 * LANES]) {
        let (halves, _) = to.as_chunks_mut::<2>();
        for (half, value) in halves.iter_mut().zip(self.0) {
            *half = float_to_half(value).to_le_bytes();
        }
    }

    #[inline(always)]
    fn store_low_bytes(self, to: &mut [u8; LANES]) {
        *to = self.0.map(|value| value.to_bits() as u8);
    }

    #[inline(always)]
    fn load_signed_bytes(_set: Self::Set, bytes: &[u8; LANES]) -> Self {
        each(|lane| f32::from(bytes[lane].cast_signed()))
    }

    #[inline(always)]
    fn fma(self, factor: Self, addend: Self) -> Self {
        Self(fma_lanes(&self.0, &factor.0, &addend.0))
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        each(|lane| self.0[lane] + other.0[lane])
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        each(|lane| self.0[lane] - other.0[lane])
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        each(|lane| self.0[lane] * other.0[lane])
    }

    #[inline(always)]
    fn div(self, other: Self) -> Self {
        each(|lane| self.0[lane] / other.0[lane])
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        each(|lane| if self.0[lane] > other.0[lane] { self.0[lane] } else { other.0[lane] })
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        each(|lane| if self.0[lane] < other.0[lane] { self.0[lane] } else { other.0[lane] })
    }

    #[inline(always)]
    fn select_below(self, bound: Self, yes: Self, no: Self) -> Self {
        each(|lane| if self.0[lane] < bound.0[lane] { yes.0[lane] } else { no.0[lane] })
    }

    #[inline(always)]
    fn power_of_two(self) -> Self {
        each(|lane| f32::from_bits((self.0[lane].to_bits() << 23).wrapping_add(1.0f32.to_bits())))
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        let mut values = self.0;
        for step in [8, 4, 2, 1] {
            for lane in 0..step {
                values[lane] += values[lane + step];
            }
        }
        values[0]
    }

    #[inline(always)]
    fn integers(_set: Self::Set, _factors: i32) -> Self::Integers {
        [0; LANES]
    }

    #[inline(always)]
    fn dot4(mut sums: Self::Integers, bytes: &[u8; 4 * LANES], quad: i32) -> Self::Integers {
        add_products(&mut sums, bytes, quad);
        sums
    }

    #[inline(always)]
    fn dot2(mut sums: Self::Integers, words: &[u8; 4 * LANES], pair: i32) -> Self::Integers {
        let [first, second] = [pair as i16, (pair >> 16) as i16].map(i32::from);
        for (sum, [a, b, c, d]) in sums.iter_mut().zip(words.as_chunks::<4>().0) {
            let [low, high] = [[*a, *b], [*c, *d]].map(|word| i32::from(i16::from_le_bytes(word)));
            *sum = sum.wrapping_add((low * first).wrapping_add(high * second));
        }
        sums
    }

    #[inline(always)]
    fn store_pairs(first: Self, second: Self, to: &mut [i32; LANES]) {
        for (to, (first, second)) in to.iter_mut().zip(first.0.iter().zip(&second.0)) {
            *to = (first.to_bits() & 0xffff | second.to_bits() << 16).cast_signed();
        }
    }

    #[inline(always)]
    fn from_integers(values: Self::Integers) -> Self {
        each(|lane| values[lane] as f32)
    }
}
