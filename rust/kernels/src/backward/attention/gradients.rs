//! The backward pass of one head of one sequence.

use std::ops::Range;

use super::softmax::{cap_scores, exponents};
use super::tiles::{SIDE, Tiles};
use crate::Error;
use crate::backward::pieces::{Scratch, sized};
use crate::backward::product::multiply_small;
use crate::backward::tile::Target;
use crate::backward::view::View;
use crate::math::{Kernel, LANES, Lanes};
use crate::shared::SharedSlice;

/// What the forward pass computed, and the gradient with respect to its output.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) output: &'a [f32],
    pub(super) logarithms: &'a [f32],
    pub(super) gradient: &'a [f32],
}

pub(super) struct Backward<'a> {
    pub(super) tiles: Tiles<'a>,
    pub(super) known: Known<'a>,
    /// Gradients with respect to queries, keys and values.
    pub(super) targets: &'a [SharedSlice<'a, f32>; 3],
    /// Whether this is the first query head of its key and value head: what is there is overwritten.
    pub(super) first: bool,
    pub(super) scratch: &'a mut Scratch,
}

impl Kernel for Backward<'_> {
    type Output = Result<(), Error>;

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) -> Result<(), Error> {
        let Self { tiles, known, targets, first: overwrite, scratch } = self;
        let shape = tiles.shape;
        clear(&tiles, targets, overwrite);
        for first in (0..tiles.tokens.len()).step_by(SIDE) {
            let rows = SIDE.min(tiles.tokens.len() - first);
            let outputs = tiles.output_rows(known.output, first, rows);
            let gradients = tiles.output_rows(known.gradient, first, rows);
            let mut products = [0.0; SIDE];
            for (row, product) in products.iter_mut().take(rows).enumerate() {
                *product = dot::<L>(set, row_of(&outputs, row), row_of(&gradients, row));
            }
            for keys in tiles.keys(first, rows) {
                let Scratch { left, right, rows: spare, scores, gradients: slopes, .. } = &mut *scratch;
                let scores = sized(scores, SIDE * SIDE)?;
                let slopes = sized(slopes, SIDE * SIDE)?;
                // SAFETY: this piece alone writes the gradients of its queries, keys and values; the rest is this thread's.
                unsafe {
                    tiles.scores::<L>(set, (first, rows), &keys, scores, left, right, spare)?;
                    let numbers = SharedSlice::new(slopes);
                    let target = Target { numbers: &numbers, start: 0, stride: SIDE, scale: 1.0, turned: false };
                    let values = tiles.value_rows(&keys).transposed();
                    multiply_small::<L>(set, gradients, values, target, false, (left, right, spare))?;
                }
                for row in 0..rows {
                    let token = tiles.tokens.start + first + row;
                    slopes_of_row::<L>(
                        set,
                        &mut scores[row * SIDE..][..keys.len()],
                        &mut slopes[row * SIDE..][..keys.len()],
                        tiles.seen(first + row, &keys),
                        (known.logarithms[token * shape.heads + tiles.head], products[row], shape.soft_cap),
                    );
                }
                let weights = View::part(scores, (0, rows), (0, keys.len()), SIDE);
                let slopes = View::part(slopes, (0, rows), (0, keys.len()), SIDE);
                let [of_query, of_key, of_value] = targets;
                let buffers = (&mut *left, &mut *right, &mut *spare);
                let target = target(&tiles, of_query, (first, tiles.head), shape.heads, shape.key_size, shape.scale);
                // SAFETY: as above.
                unsafe { multiply_small::<L>(set, slopes, tiles.key_rows(&keys), target, true, buffers)? };
                let of_keys = (keys.start, tiles.kv_head);
                let queries = tiles.queries(first, rows);
                let (count, size) = (shape.kv_heads, shape.key_size);
                let target = self::target(&tiles, of_key, of_keys, count, size, shape.scale);
                let buffers = (&mut *left, &mut *right, &mut *spare);
                // SAFETY: as above.
                unsafe { multiply_small::<L>(set, slopes.transposed(), queries, target, true, buffers)? };
                let target = self::target(&tiles, of_value, of_keys, count, shape.value_size, 1.0);
                let buffers = (&mut *left, &mut *right, &mut *spare);
                // SAFETY: as above.
                unsafe { multiply_small::<L>(set, weights.transposed(), gradients, target, true, buffers)? };
            }
        }
        Ok(())
    }
}

/// The rows of a head from a position on, in a gradient with `heads` heads of `size` elements.
fn target<'a>(
    tiles: &Tiles,
    numbers: &'a SharedSlice<'a, f32>,
    (first, head): (usize, usize),
    heads: usize,
    size: usize,
    scale: f32,
) -> Target<'a> {
    let stride = heads * size;
    Target { numbers, start: (tiles.tokens.start + first) * stride + head * size, stride, scale, turned: false }
}

/// Sets the gradients of the head to 0, and those of its keys and values if it is their first.
fn clear(tiles: &Tiles, targets: &[SharedSlice<f32>; 3], overwrite: bool) {
    let shape = tiles.shape;
    let sizes = [
        (tiles.head, shape.heads, shape.key_size, true),
        (tiles.kv_head, shape.kv_heads, shape.key_size, overwrite),
        (tiles.kv_head, shape.kv_heads, shape.value_size, overwrite),
    ];
    for (numbers, (head, heads, size, clears)) in targets.iter().zip(sizes) {
        for token in tiles.tokens.clone().take_while(|_| clears) {
            // SAFETY: this piece alone writes the gradients of its queries, keys and values.
            unsafe { numbers.part((token * heads + head) * size, size) }.fill(0.0);
        }
    }
}

/// Turns scores into weights, and the gradients with respect to weights into those with respect to scores before the cap.
#[inline(always)]
fn slopes_of_row<L: Lanes>(
    set: L::Set,
    scores: &mut [f32],
    slopes: &mut [f32],
    seen: Range<usize>,
    (logarithm, product, soft_cap): (f32, f32, Option<f32>),
) {
    let product = L::splat(set, product);
    if let Some(cap) = soft_cap {
        cap_scores::<L>(set, scores, cap);
        for (slopes, scores) in slopes.chunks_mut(LANES).zip(scores.chunks(LANES)) {
            let share = L::load_part(set, scores).div(L::splat(set, cap));
            let factor = L::splat(set, 1.0).sub(share.mul(share));
            L::load_part(set, slopes).sub(product).mul(factor).store_part(slopes);
        }
    } else {
        for slopes in slopes.chunks_mut(LANES) {
            L::load_part(set, slopes).sub(product).store_part(slopes);
        }
    }
    exponents::<L>(set, scores, seen, logarithm);
    for (slopes, scores) in slopes.chunks_mut(LANES).zip(scores.chunks(LANES)) {
        L::load_part(set, slopes).mul(L::load_part(set, scores)).store_part(slopes);
    }
}

fn row_of<'a>(view: &View<'a>, row: usize) -> &'a [f32] {
    &view.numbers[row * view.row_stride..][..view.columns]
}

#[inline(always)]
fn dot<L: Lanes>(set: L::Set, a: &[f32], b: &[f32]) -> f32 {
    let mut sums = L::zero(set);
    for (a, b) in a.chunks(LANES).zip(b.chunks(LANES)) {
        sums = L::load_part(set, a).fma(L::load_part(set, b), sums);
    }
    sums.sum()
}
