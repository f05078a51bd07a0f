//! The convolution over the last tokens of every channel, the lengths of queries and keys, and the gates of heads.

use std::ops::Range;

use super::shape::{DeltaItem, DeltaNet, DeltaWeights, Place};
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch, doubles, silu};
use crate::shared::SharedSlice;

/// Rows of a piece of work.
pub(super) const PIECE_ROWS: usize = 32;
/// Added to the sum of squares of a query or key.
const EPSILON: f32 = 1e-6;

/// Computes everything that the recurrence reads of some rows: of head `head` of queries and keys if there are as many, of
/// a value head otherwise.
///
/// # Safety
/// No one else uses these results of this head and these rows.
pub(super) unsafe fn convolve(
    isa: Isa,
    net: &DeltaNet,
    weights: &DeltaWeights,
    item: &DeltaItem,
    place: Place,
    (head, rows): (usize, Range<usize>),
    results: &SharedSlice<f32>,
) {
    let (first, count) = (rows.start, rows.len());
    // SAFETY: the caller promises that no one else uses these rows of the head.
    let part = |start: usize, size: usize| unsafe { results.part(start + first * size, count * size) };
    let width = net.key_heads * net.key_size;
    if head < net.key_heads {
        let (queries, keys) = (part(place.query(net, head), net.key_size), part(place.key(net, head), net.key_size));
        for (from, to) in [(0, &mut *queries), (width, &mut *keys)] {
            let from = from + head * net.key_size;
            dispatch(isa, Convolution { net, weights, item, first, channel: from, size: net.key_size, output: to });
        }
        let products = part(place.product(head), 1);
        dispatch(isa, Lengths { size: net.key_size, queries, keys, products });
        return;
    }
    let head = head - net.key_heads;
    let output = part(place.value(net, head), net.value_size);
    let channel = 2 * width + head * net.value_size;
    dispatch(isa, Convolution { net, weights, item, first, channel, size: net.value_size, output });
    let gate = |values: &[f32], row: usize| values[(first + row) * net.value_heads + head];
    let (decay, write) = (part(place.decay(head), 1), part(place.write(net, head), 1));
    gates(isa, (weights.decay[head], weights.time[head]), decay, |row| gate(item.time, row));
    logistic(isa, write, |row| gate(item.write, row));
}

/// `exp(decay softplus(x + time))` for each row, in f64.
fn gates(isa: Isa, (decay, time): (f32, f32), output: &mut [f32], x: impl Fn(usize) -> f32) {
    let mut values = [0.0f64; PIECE_ROWS];
    let values = &mut values[..output.len()];
    for (row, value) in values.iter_mut().enumerate() {
        *value = f64::from(x(row) + time);
    }
    doubles::exp(isa, values);
    for value in &mut *values {
        *value += 1.0;
    }
    doubles::ln(isa, values);
    for (row, value) in values.iter_mut().enumerate() {
        let x = f64::from(x(row) + time);
        // Above this, the logarithm equals x in f32.
        *value = f64::from(decay) * if x > 40.0 { x } else { *value };
    }
    doubles::exp(isa, values);
    for (to, value) in output.iter_mut().zip(&*values) {
        *to = *value as f32;
    }
}

/// `1 / (1 + exp(-x))` for each row, in f64.
fn logistic(isa: Isa, output: &mut [f32], x: impl Fn(usize) -> f32) {
    let mut values = [0.0f64; PIECE_ROWS];
    let values = &mut values[..output.len()];
    for (row, value) in values.iter_mut().enumerate() {
        *value = f64::from(-x(row));
    }
    doubles::exp(isa, values);
    for (to, value) in output.iter_mut().zip(&*values) {
        *to = (1.0 / (1.0 + value)) as f32;
    }
}

/// `output` (rows × size): `silu` of the sum over the last tokens, from channel `channel` on.
struct Convolution<'a> {
    net: &'a DeltaNet,
    weights: &'a DeltaWeights<'a>,
    item: &'a DeltaItem<'a>,
    /// Index of the first row.
    first: usize,
    channel: usize,
    size: usize,
    output: &'a mut [f32],
}

impl Kernel for Convolution<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { net, weights, item, first, channel, size, output } = self;
        let (width, past) = (net.channels(), net.taps - 1);
        for (row, output) in output.chunks_exact_mut(size).enumerate() {
            for (block, output) in output.chunks_mut(LANES).enumerate() {
                let start = channel + block * LANES;
                let mut sum = L::zero(set);
                for tap in 0..net.taps {
                    // Counted from the oldest token of the state.
                    let token = first + row + tap;
                    let x = match token.checked_sub(past) {
                        Some(token) => &item.channels[token * width + start..][..output.len()],
                        None => match item.before {
                            Some(before) => &before[token * width + start..][..output.len()],
                            None => continue,
                        },
                    };
                    let weight = &weights.convolution[tap * width + start..][..output.len()];
                    sum = L::load_part(set, weight).fma(L::load_part(set, x), sum);
                }
                silu(sum).store_part(output);
            }
        }
    }
}

/// Divides queries and keys by their lengths, queries also by the root of their size, and sets the products of both.
struct Lengths<'a> {
    size: usize,
    queries: &'a mut [f32],
    keys: &'a mut [f32],
    products: &'a mut [f32],
}

impl Kernel for Lengths<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { size, queries, keys, products } = self;
        let scale = 1.0 / (size as f32).sqrt();
        let rows = queries.chunks_exact_mut(size).zip(keys.chunks_exact_mut(size));
        for ((query, key), product) in rows.zip(products) {
            multiply::<L>(set, query, scale / (dot::<L>(set, query, query) + EPSILON).sqrt());
            multiply::<L>(set, key, 1.0 / (dot::<L>(set, key, key) + EPSILON).sqrt());
            *product = dot::<L>(set, query, key);
        }
    }
}

#[inline(always)]
fn multiply<L: Lanes>(set: L::Set, x: &mut [f32], factor: f32) {
    let factor = L::splat(set, factor);
    for x in x.chunks_mut(LANES) {
        L::load_part(set, x).mul(factor).store_part(x);
    }
}

/// Sixteen interleaved sums.
#[inline(always)]
fn dot<L: Lanes>(set: L::Set, x: &[f32], y: &[f32]) -> f32 {
    let mut sums = L::zero(set);
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        sums = L::load_part(set, x).fma(L::load_part(set, y), sums);
    }
    sums.sum()
}
