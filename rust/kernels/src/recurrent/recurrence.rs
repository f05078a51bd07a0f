//! The recurrence of one value head.

use super::shape::{DeltaNet, DeltaWeights};
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch, silu};
use crate::shared::SharedSlice;

/// What a value head reads; each is tokens × the size given.
pub(super) struct Head<'a> {
    pub(super) net: &'a DeltaNet,
    pub(super) weights: &'a DeltaWeights<'a>,
    pub(super) index: usize,
    /// key size
    pub(super) query: &'a [f32],
    /// key size
    pub(super) key: &'a [f32],
    /// value size
    pub(super) value: &'a [f32],
    /// 1
    pub(super) decay: &'a [f32],
    /// 1
    pub(super) write: &'a [f32],
    /// 1: query times key
    pub(super) product: &'a [f32],
    /// value width, of all heads
    pub(super) gate: Option<&'a [f32]>,
    /// The matrix before the tokens.
    pub(super) before: Option<&'a [f32]>,
}

/// Runs all tokens through the head: sets its matrix to the one after them, and its part of every row of the output.
///
/// # Safety
/// No one else uses the elements of this head in `output`.
pub(super) unsafe fn advance(isa: Isa, head: &Head, matrix: &mut [f32], output: &SharedSlice<f32>) {
    match head.before {
        Some(before) => matrix.copy_from_slice(before),
        None => matrix.fill(0.0),
    }
    let net = head.net;
    let size = net.key_size * LANES;
    for (block, matrix) in matrix.chunks_exact_mut(size).enumerate() {
        dispatch(isa, Recurrence { head, block, matrix, output });
    }
    if let Some(gate) = head.gate {
        for token in 0..head.decay.len() {
            let start = token * net.value_width() + head.index * net.value_size;
            // SAFETY: the caller promises that no one else uses these elements.
            let output = unsafe { output.part(start, net.value_size) };
            let gate = &gate[start..][..net.value_size];
            dispatch(isa, Finish { norm: head.weights.norm, epsilon: head.weights.epsilon, gate, output });
        }
    }
}

/// All tokens through sixteen columns of the matrix.
///
/// What a token writes is added to the matrix while the next one reads it. Sums over rows have two parts, of even and of
/// odd rows, so that enough of them are independent of each other.
struct Recurrence<'a, 'b> {
    head: &'a Head<'a>,
    block: usize,
    matrix: &'a mut [f32],
    output: &'a SharedSlice<'b, f32>,
}

impl Kernel for Recurrence<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { head, block, matrix, output } = self;
        let Head { net, query, key, value, decay, write, product, .. } = *head;
        let (key_size, value_size) = (net.key_size, net.value_size);
        let (rows, _) = matrix.as_chunks_mut::<LANES>();
        let columns = (value_size - block * LANES).min(LANES);
        let mut written = L::zero(set);
        let mut last = &key[..0];
        for token in 0..decay.len() {
            let key = &key[token * key_size..][..key_size];
            let query = &query[token * key_size..][..key_size];
            let factor = L::splat(set, decay[token]);
            let (found, read) = if token == 0 {
                // Nothing has been written yet.
                pass::<L, false>(set, rows, (key, written), (key, query), factor)
            } else {
                pass::<L, true>(set, rows, (last, written), (key, query), factor)
            };
            let value = L::load_part(set, &value[token * value_size + block * LANES..][..columns]);
            written = value.sub(found).mul(L::splat(set, write[token]));
            let result = written.fma(L::splat(set, product[token]), read);
            let start = token * net.value_width() + head.index * value_size + block * LANES;
            // SAFETY: elements of this head, which `advance`'s caller promises to no one else, and of this block.
            result.store_part(unsafe { output.part(start, columns) });
            last = key;
        }
        for (row, key) in rows.iter_mut().zip(last) {
            written.fma(L::splat(set, *key), L::load(set, row)).store(row);
        }
    }
}

/// Adds what the last token wrote, `written` times its key, then decays; returns the sums over rows of the result times
/// the key and times the query.
#[inline(always)]
fn pass<L: Lanes, const ADD: bool>(
    set: L::Set,
    rows: &mut [[f32; LANES]],
    (last, written): (&[f32], L),
    (key, query): (&[f32], &[f32]),
    decay: L,
) -> (L, L) {
    let zero = (L::zero(set), L::zero(set));
    let (mut even, mut odd) = (zero, zero);
    let (pairs, rest) = rows.as_chunks_mut::<2>();
    let factors = last.as_chunks::<2>().0.iter().zip(key.as_chunks::<2>().0).zip(query.as_chunks::<2>().0);
    for ([first, second], ((last, key), query)) in pairs.iter_mut().zip(factors) {
        even = row::<L, ADD>(first, (last[0], written), (key[0], query[0]), decay, even);
        odd = row::<L, ADD>(second, (last[1], written), (key[1], query[1]), decay, odd);
    }
    if let ([one], [.., last], [.., key], [.., query]) = (rest, last, key, query) {
        even = row::<L, ADD>(one, (*last, written), (*key, *query), decay, even);
    }
    (even.0.add(odd.0), even.1.add(odd.1))
}

/// The same for one row; adds to two sums.
#[inline(always)]
fn row<L: Lanes, const ADD: bool>(
    row: &mut [f32; LANES],
    (last, written): (f32, L),
    (key, query): (f32, f32),
    decay: L,
    (found, read): (L, L),
) -> (L, L) {
    let set = decay.set();
    let x = L::load(set, row);
    let x = if ADD { written.fma(L::splat(set, last), x) } else { x }.mul(decay);
    x.store(row);
    (x.fma(L::splat(set, key), found), x.fma(L::splat(set, query), read))
}

/// `output = output / sqrt(mean(output^2) + epsilon) norm silu(gate)`.
struct Finish<'a> {
    norm: &'a [f32],
    epsilon: f32,
    gate: &'a [f32],
    output: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { norm, epsilon, gate, output } = self;
        let mut sums = L::zero(set);
        for x in output.chunks(LANES) {
            let x = L::load_part(set, x);
            sums = x.fma(x, sums);
        }
        let factor = L::splat(set, 1.0 / (sums.sum() / output.len() as f32 + epsilon).sqrt());
        for ((x, norm), gate) in output.chunks_mut(LANES).zip(norm.chunks(LANES)).zip(gate.chunks(LANES)) {
            let y = L::load_part(set, x).mul(factor).mul(L::load_part(set, norm));
            y.mul(silu(L::load_part(set, gate))).store_part(x);
        }
    }
}
