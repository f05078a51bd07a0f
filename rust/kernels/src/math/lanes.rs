//! The interface of sixteen `f32` lanes to kernels.

use crate::cpu::sets::{Code, InstructionSet};

/// Number of lanes in a vector.
pub const LANES: usize = 16;

/// Sixteen `f32` values and the operations that all kernels are built from.
///
/// A value comes from the token of an instruction set or from other values, so it exists only where the processor has the set.
/// Every function is `#[inline(always)]`, since in code that [`dispatch`](super::dispatch) did not compile for the set every
/// instruction becomes a call: slow, but sound.
#[expect(clippy::return_self_not_must_use, reason = "nobody adds two vectors for anything but their sum")]
pub trait Lanes: Copy + Send + Sync + 'static {
    /// The instruction set.
    type Set: InstructionSet;
    /// Sixteen `i32` values, with the same guarantee.
    type Integers: Copy;
    /// Whether 32 vectors of 16 lanes fit into the registers (otherwise 8 do).
    const MANY_REGISTERS: bool;
    /// Terms that a lane of a product of signed bytes adds at a time: 4 by [`Lanes::dot4`], or 2 of 16 bits by [`Lanes::dot2`] where
    /// that is faster.
    const TERMS: usize = 4;

    /// Runs a kernel as a separate function, compiled for the instruction set. Large kernels are split by such calls to reduce
    /// compile time.
    #[inline(always)]
    fn call<K: Kernel>(set: Self::Set, kernel: K) -> K::Output {
        set.call(WithLanes::<Self, K> { set, kernel })
    }

    /// The token that the value comes from.
    #[inline(always)]
    fn set(self) -> Self::Set {
        // SAFETY: a value exists only where the processor has the set.
        unsafe { Self::Set::assume() }
    }

    /// The same value in every lane.
    fn splat(set: Self::Set, value: f32) -> Self;
    /// Lane `i` is `values[i]`.
    fn load(set: Self::Set, values: &[f32; LANES]) -> Self;
    /// `to[i]` becomes lane `i`.
    fn store(self, to: &mut [f32; LANES]);
    /// Lane `i` is the little-endian `f32` at byte `4 * i`.
    fn load_floats(set: Self::Set, bytes: &[u8; 4 * LANES]) -> Self;
    /// Lane `i` is the little-endian IEEE half at byte `2 * i`.
    fn load_halves(set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self;
    /// Lane `i` is the little-endian bf16 at byte `2 * i`.
    fn load_brains(set: Self::Set, bytes: &[u8; 2 * LANES]) -> Self;
    /// The little-endian bytes of all lanes.
    fn store_floats(self, to: &mut [u8; 4 * LANES]);
    /// Rounds to IEEE halves, to nearest, ties to even, as little-endian bytes.
    fn store_halves(self, to: &mut [u8; 2 * LANES]);
    /// `to[i]` becomes the lowest byte of lane `i`: for `MAGIC + n`, the integer `n` as `i8`. See [`MAGIC`].
    fn store_low_bytes(self, to: &mut [u8; LANES]);
    /// Lane `i` is the `i8` at byte `i`.
    fn load_signed_bytes(set: Self::Set, bytes: &[u8; LANES]) -> Self;

    /// `self * factor + addend`, rounded once.
    fn fma(self, factor: Self, addend: Self) -> Self;
    /// Sum.
    fn add(self, other: Self) -> Self;
    /// Difference.
    fn sub(self, other: Self) -> Self;
    /// Product.
    fn mul(self, other: Self) -> Self;
    /// Quotient.
    fn div(self, other: Self) -> Self;
    /// `self > other ? self : other`, so `other` if either is NaN.
    fn max(self, other: Self) -> Self;
    /// `self < other ? self : other`, so `other` if either is NaN.
    fn min(self, other: Self) -> Self;
    /// Lane by lane: `self < bound ? yes : no`.
    fn select_below(self, bound: Self, yes: Self, no: Self) -> Self;
    /// `2^n` for lanes that hold `MAGIC + n` with an integer `-127 < n < 128`; any value otherwise. See [`MAGIC`].
    fn power_of_two(self) -> Self;
    /// The sum of all lanes: lane `i` plus lane `i + 8`, then `+ 4`, `+ 2`, `+ 1`.
    fn sum(self) -> f32;

    /// The start value of a chain of [`Lanes::dot4`] whose factors have this sum.
    fn integers(set: Self::Set, factors: i32) -> Self::Integers;
    /// Adds to lane `i` the exact sum of `(bytes[4 * i + j] - 128) * factor[j]`, `j` in `0..4`, where the factors are the
    /// signed bytes of `quad`, lowest first. Bytes are 1 to 255, factors -127 to 127.
    fn dot4(sums: Self::Integers, bytes: &[u8; 4 * LANES], quad: i32) -> Self::Integers;
    /// Adds to lane `i` `words[2 * i] * first + words[2 * i + 1] * second`: signed numbers of 16 bits, the factors being the lower
    /// and the upper half of `pair`. The chain starts with `integers(set, 0)`; sums wrap around.
    fn dot2(sums: Self::Integers, words: &[u8; 4 * LANES], pair: i32) -> Self::Integers;
    /// `to[i]` becomes the lower 16 bits of lane `i` of `first`, and those of `second` above them: for `MAGIC + n`, the integer
    /// `n` as `i16`. See [`MAGIC`].
    fn store_pairs(first: Self, second: Self, to: &mut [i32; LANES]);
    /// Converts integers, rounded to nearest, ties to even.
    fn from_integers(values: Self::Integers) -> Self;

    /// Lane `i` of vector `j` is lane `j` of vector `i`.
    #[inline(always)]
    fn transpose(rows: [Self; LANES]) -> [Self; LANES] {
        let set = rows[0].set();
        let mut turned = [[0.0; LANES]; LANES];
        for (j, row) in rows.into_iter().enumerate() {
            for (i, value) in row.to_array().into_iter().enumerate() {
                turned[i][j] = value;
            }
        }
        let mut columns = [Self::zero(set); LANES];
        for (column, values) in columns.iter_mut().zip(&turned) {
            *column = Self::load(set, values);
        }
        columns
    }

    /// Zeros.
    #[inline(always)]
    fn zero(set: Self::Set) -> Self {
        Self::splat(set, 0.0)
    }

    /// Loads at most 16 values, padded with zeros.
    #[inline(always)]
    fn load_part(set: Self::Set, values: &[f32]) -> Self {
        if let Some(all) = values.first_chunk() {
            return Self::load(set, all);
        }
        let mut padded = [0.0; LANES];
        padded[..values.len()].copy_from_slice(values);
        Self::load(set, &padded)
    }

    /// Stores the first `to.len()` lanes, at most 16.
    #[inline(always)]
    fn store_part(self, to: &mut [f32]) {
        if let Some(all) = to.first_chunk_mut() {
            return self.store(all);
        }
        let mut padded = [0.0; LANES];
        self.store(&mut padded);
        let count = to.len();
        to.copy_from_slice(&padded[..count]);
    }

    /// The lanes as an array.
    #[inline(always)]
    fn to_array(self) -> [f32; LANES] {
        let mut values = [0.0; LANES];
        self.store(&mut values);
        values
    }

    /// Lane 0.
    #[inline(always)]
    fn first(self) -> f32 {
        self.to_array()[0]
    }

    /// The largest lane, in the order of [`Lanes::sum`].
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut values = self.to_array();
        for step in [8, 4, 2, 1] {
            for lane in 0..step {
                values[lane] = if values[lane] > values[lane + step] { values[lane] } else { values[lane + step] };
            }
        }
        values[0]
    }
}

/// `1.5 * 2^23`: adding it to a number below `2^22` in magnitude rounds that to an integer, ties to even, which is then in
/// the low bits.
pub const MAGIC: f32 = 12_582_912.0;

/// Work that is generic over the instruction set.
pub trait Kernel {
    /// The result of the work.
    type Output;
    /// Does the work. Mark it and everything it calls with `L` `#[inline(always)]`.
    fn run<L: Lanes>(self, set: L::Set) -> Self::Output;
}

/// A kernel together with the lanes it runs on.
struct WithLanes<L: Lanes, K> {
    set: L::Set,
    kernel: K,
}

impl<L: Lanes, K: Kernel> Code for WithLanes<L, K> {
    type Output = K::Output;

    #[inline(always)]
    fn run(self) -> K::Output {
        self.kernel.run::<L>(self.set)
    }
}
