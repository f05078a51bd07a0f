//! Blocks of three values: the largest magnitude is the scale, and quants 0, 1 and 2 stand for -1, 0 and 1.

use half::f16;

use super::lanes::magnitude;
use super::rows::Rows;
use super::search::inverse;
use crate::cpu::Isa;
use crate::formats::ternary::{POWERS, RUNS, element};
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch};

/// Writes TQ1_0.
pub(crate) fn tq1_0(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    dispatch(isa, Digits(rows.values, out));
}

/// Writes TQ2_0.
pub(crate) fn tq2_0(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    dispatch(isa, Pairs(rows.values, out));
}

/// Vectors in a block.
const VECTORS: usize = 256 / LANES;

/// Scale and quants of a block. A NaN becomes 1, the quant of zero.
#[inline(always)]
fn quants<L: Lanes>(set: L::Set, values: &[f32; 256]) -> (f16, [L; VECTORS]) {
    let mut quants = [L::zero(set); VECTORS];
    let mut largest = L::zero(set);
    for (quants, values) in quants.iter_mut().zip(values.as_chunks::<LANES>().0) {
        *quants = L::load(set, values);
        largest = magnitude(*quants).max(largest);
    }
    let d = largest.largest();
    let inverse = L::splat(set, inverse(d));
    let (half, minus_half) = (L::splat(set, 0.5), L::splat(set, -0.5));
    let (zero, one) = (L::zero(set), L::splat(set, 1.0));
    for quants in &mut quants {
        // Halves are rounded away from zero.
        let x = quants.mul(inverse);
        let lower = x.select_below(half, one, L::splat(set, 2.0));
        *quants = minus_half.select_below(x, lower, x.select_below(zero, zero, one));
    }
    (f16::from_f32(d), quants)
}

/// The number whose digits, the highest first, are the quants of these vectors.
#[inline(always)]
fn number<L: Lanes>(set: L::Set, quants: &[L], vectors: impl Iterator<Item = usize>, base: f32) -> L {
    let base = L::splat(set, base);
    vectors.fold(L::zero(set), |number, vector| number.fma(base, quants[vector]))
}

struct Digits<'a>(&'a [f32], &'a mut [u8]);

impl Kernel for Digits<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        // Fractions of 256 instead of 243, rounded up, so that multiplying by 3 extracts the digits exactly: a multiple of 1/243
        // plus half a unit less half a step is rounded to the integer above.
        let (factor, up) = (L::splat(set, 256.0 / 243.0), L::splat(set, 0.5 - 0.5 / 243.0));
        let magic = L::splat(set, MAGIC);
        for (values, out) in self.0.as_chunks::<256>().0.iter().zip(self.1.as_chunks_mut::<54>().0) {
            let (d, quants) = quants::<L>(set, values);
            let (bytes, rest) = out.as_chunks_mut::<LANES>();
            for (l, bytes) in bytes.iter_mut().enumerate() {
                // Two vectors of bytes with digits 32 weights apart, then one with digits 16 apart.
                let (first, step) = if l < 2 { (l, 2) } else { (10, 1) };
                let number = number(set, &quants, (0..5).map(|digit| first + step * digit), 3.0);
                number.fma(factor, up).add(magic).store_low_bytes(bytes);
            }
            let last = quants[VECTORS - 1].to_array();
            let (first, count, digits) = RUNS[2];
            for (l, out) in rest[..count].iter_mut().enumerate() {
                let number: f32 = (0..digits)
                    .map(|digit| last[element(first, count, digit, l) % LANES] * f32::from(POWERS[4 - digit]))
                    .sum();
                *out = (number as u32 * 256).div_ceil(243) as u8;
            }
            rest[count..].copy_from_slice(&d.to_le_bytes());
        }
    }
}

struct Pairs<'a>(&'a [f32], &'a mut [u8]);

impl Kernel for Pairs<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let magic = L::splat(set, MAGIC);
        for (values, out) in self.0.as_chunks::<256>().0.iter().zip(self.1.as_chunks_mut::<66>().0) {
            let (d, quants) = quants::<L>(set, values);
            let (bytes, rest) = out.as_chunks_mut::<LANES>();
            for (l, bytes) in bytes.iter_mut().enumerate() {
                // Weights are 32 apart, the first one in the lowest bits.
                let vectors = (0..4).rev().map(|run| l / 2 * 8 + l % 2 + 2 * run);
                number(set, &quants, vectors, 4.0).add(magic).store_low_bytes(bytes);
            }
            rest.copy_from_slice(&d.to_le_bytes());
        }
    }
}
