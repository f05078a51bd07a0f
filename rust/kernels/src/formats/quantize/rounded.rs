//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 by rounding alone, to the bytes of the reference implementation. The extremes of sixteen
//! blocks are found at once, one block in each lane.

use super::lanes::magnitude;
use super::rows::Rows;
use super::search::extreme;
use crate::cpu::Isa;
use crate::formats::simple::write_quants;
use crate::math::{Kernel, LANES, Lanes, MAGIC, dispatch};

/// Weights of a block.
const SIZE: usize = 32;

/// Q4_0 (`zero` 8) or Q5_0 (16): the value of largest magnitude becomes `-zero`.
pub(crate) fn symmetric<const BYTES: usize>(isa: Isa, rows: &Rows<'_>, zero: f32, out: &mut [u8]) {
    dispatch(isa, Symmetric::<BYTES> { values: rows.values, zero, out });
}

/// Q4_1 (`largest` 15) or Q5_1 (31): the smallest and largest values become 0 and `largest`.
pub(crate) fn range<const BYTES: usize>(isa: Isa, rows: &Rows<'_>, largest: f32, out: &mut [u8]) {
    dispatch(isa, Range::<BYTES> { values: rows.values, largest, out });
}

/// Q8_0: the largest magnitude becomes 127; halves are rounded away from zero.
pub(crate) fn q8_0(isa: Isa, rows: &Rows<'_>, out: &mut [u8]) {
    dispatch(isa, Bytes { values: rows.values, out });
}

struct Symmetric<'a, const BYTES: usize> {
    values: &'a [f32],
    zero: f32,
    out: &'a mut [u8],
}

impl<const BYTES: usize> Kernel for Symmetric<'_, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let round = Floor { offset: self.zero + 0.5, top: 2.0 * self.zero - 0.5 };
        let all =
            self.values.as_chunks::<SIZE>().0.chunks(LANES).zip(self.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES));
        for (blocks, out) in all {
            let (low, high) = extremes::<L>(set, blocks);
            let mut found = L::zero(set).sub(low).select_below(high, high, low).to_array();
            // Of two values of the same magnitude, the first one counts.
            let (low, high) = (low.to_array(), high.to_array());
            for (lane, block) in blocks.iter().enumerate() {
                if high[lane] == -low[lane] {
                    found[lane] = extreme(block);
                }
            }
            let (halves, inverses) = scales(L::load(set, &found).div(L::splat(set, -self.zero)));
            for (lane, (block, out)) in blocks.iter().zip(out).enumerate() {
                out[..2].copy_from_slice(&halves[2 * lane..][..2]);
                write_quants(&mut out[2..], &round.quants::<L>(set, block, 0.0, inverses[lane]));
            }
        }
    }
}

struct Range<'a, const BYTES: usize> {
    values: &'a [f32],
    largest: f32,
    out: &'a mut [u8],
}

impl<const BYTES: usize> Kernel for Range<'_, BYTES> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let round = Floor { offset: 0.5, top: self.largest + 0.5 };
        let all =
            self.values.as_chunks::<SIZE>().0.chunks(LANES).zip(self.out.as_chunks_mut::<BYTES>().0.chunks_mut(LANES));
        for (blocks, out) in all {
            let (low, high) = extremes::<L>(set, blocks);
            // The sum with zero is not negative zero, whatever the signs of zeros are.
            let width = high.sub(low).add(L::zero(set));
            let (halves, inverses) = scales(width.div(L::splat(set, self.largest)));
            let mut low = low.to_array();
            for (low, block) in low.iter_mut().zip(blocks) {
                // Of zeros of both signs, the first one counts.
                if *low == 0.0 {
                    *low = block.iter().copied().find(|value| *value == 0.0).unwrap_or(*low);
                }
            }
            let mut minimums = [0; 2 * LANES];
            L::load(set, &low).store_halves(&mut minimums);
            for (lane, (block, out)) in blocks.iter().zip(out).enumerate() {
                out[..2].copy_from_slice(&halves[2 * lane..][..2]);
                out[2..4].copy_from_slice(&minimums[2 * lane..][..2]);
                write_quants(&mut out[4..], &round.quants::<L>(set, block, low[lane], inverses[lane]));
            }
        }
    }
}

struct Bytes<'a> {
    values: &'a [f32],
    out: &'a mut [u8],
}

impl Kernel for Bytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let (zero, one, half) = (L::zero(set), L::splat(set, 1.0), L::splat(set, 0.5));
        let magic = L::splat(set, MAGIC);
        let all =
            self.values.as_chunks::<SIZE>().0.chunks(LANES).zip(self.out.as_chunks_mut::<34>().0.chunks_mut(LANES));
        for (blocks, out) in all {
            let (low, high) = extremes::<L>(set, blocks);
            let (halves, inverses) = scales(high.max(zero.sub(low)).div(L::splat(set, 127.0)));
            for (lane, (block, out)) in blocks.iter().zip(out).enumerate() {
                let (scale, quants) = out.split_at_mut(2);
                scale.copy_from_slice(&halves[2 * lane..][..2]);
                let inverse = L::splat(set, inverses[lane]);
                for (values, quants) in block.as_chunks::<LANES>().0.iter().zip(quants.as_chunks_mut::<LANES>().0) {
                    let x = L::load(set, values).mul(inverse);
                    let size = magnitude(x);
                    let even = size.add(magic).sub(magic);
                    let away = size.sub(even).select_below(half, even, even.add(one));
                    x.select_below(zero, zero.sub(away), away).add(magic).store_low_bytes(quants);
                }
            }
        }
    }
}

/// The smallest and the largest values of at most sixteen blocks, one block in each lane.
#[inline(always)]
fn extremes<L: Lanes>(set: L::Set, blocks: &[[f32; SIZE]]) -> (L, L) {
    let (mut lows, mut highs) = ([L::zero(set); LANES], [L::zero(set); LANES]);
    for (block, (low, high)) in blocks.iter().zip(lows.iter_mut().zip(&mut highs)) {
        let (first, second) = (L::load_part(set, &block[..LANES]), L::load_part(set, &block[LANES..]));
        (*low, *high) = (second.min(first), second.max(first));
    }
    let (lows, highs) = (L::transpose(lows), L::transpose(highs));
    let (mut low, mut high) = (lows[0], highs[0]);
    for lane in 1..LANES {
        (low, high) = (lows[lane].min(low), highs[lane].max(high));
    }
    (low, high)
}

/// Scales as halves, and their reciprocals as [`inverse`](super::search::inverse) computes them.
#[inline(always)]
fn scales<L: Lanes>(scales: L) -> ([u8; 2 * LANES], [f32; LANES]) {
    let set = scales.set();
    let mut halves = [0; 2 * LANES];
    scales.store_halves(&mut halves);
    let inverses = L::splat(set, 1.0).div(scales);
    let finite = magnitude(inverses).select_below(L::splat(set, f32::INFINITY), inverses, L::zero(set));
    (halves, finite.to_array())
}

/// Rounds `(x - minimum) · inverse + offset` down, at most to the integer below `top`. The sums must not be negative.
#[derive(Clone, Copy)]
struct Floor {
    offset: f32,
    top: f32,
}

impl Floor {
    #[inline(always)]
    fn quants<L: Lanes>(self, set: L::Set, block: &[f32; SIZE], minimum: f32, inverse: f32) -> [u8; SIZE] {
        let (minimum, inverse) = (L::splat(set, minimum), L::splat(set, inverse));
        let (offset, top) = (L::splat(set, self.offset), L::splat(set, self.top));
        let (magic, one) = (L::splat(set, MAGIC), L::splat(set, 1.0));
        let mut quants = [0; SIZE];
        for (values, quants) in block.as_chunks::<LANES>().0.iter().zip(quants.as_chunks_mut::<LANES>().0) {
            let x = L::load(set, values).sub(minimum).mul(inverse).add(offset).min(top);
            let nearest = x.add(magic);
            x.select_below(nearest.sub(magic), nearest.sub(one), nearest).store_low_bytes(quants);
        }
        quants
    }
}
