//! Element-wise functions and softmax.

use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch, exp, silu};
use crate::shared::Pieces;

/// Numbers in one piece of work, a multiple of the lanes.
const PIECE: usize = 16 * 1024;

/// `gate = silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))` (N. Shazeer, "GLU Variants Improve Transformer", 2020).
///
/// # Errors
/// `Error::Shape` for different lengths; `Error::Cancelled`.
pub fn swiglu(context: &Context, gate: &mut [f32], up: &[f32]) -> Result<(), Error> {
    pairwise(context, gate, up, "gate and up projections", |x, y| Pair::Swiglu(x, y))
}

/// `x = x + y`.
///
/// # Errors
/// `Error::Shape` for different lengths; `Error::Cancelled`.
pub fn add(context: &Context, x: &mut [f32], y: &[f32]) -> Result<(), Error> {
    pairwise(context, x, y, "summands", |x, y| Pair::Add(x, y))
}

/// `x = x * factor`.
///
/// # Errors
/// `Error::Cancelled`.
pub fn scale(context: &Context, x: &mut [f32], factor: f32) -> Result<(), Error> {
    let pieces = Pieces::new(x, PIECE);
    let count = pieces.count();
    context.for_each(count, &|piece| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        for x in unsafe { pieces.get(piece) } {
            *x *= factor;
        }
    })
}

/// `x = exp(x - max(x)) / sum(exp(x - max(x)))`. No numbers: no effect. A row of nothing but negative infinity has no
/// softmax: it becomes NaN, as does a row with NaN or positive infinity.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    dispatch(isa, Softmax(x));
}

fn pairwise(
    context: &Context,
    x: &mut [f32],
    y: &[f32],
    what: &str,
    function: impl for<'a> Fn(&'a mut [f32], &'a [f32]) -> Pair<'a> + Sync,
) -> Result<(), Error> {
    if x.len() != y.len() {
        return Err(Error::Shape(format!("{} and {} {what}; expected as many of each", x.len(), y.len())));
    }
    let pieces = Pieces::new(x, PIECE);
    context.for_each(pieces.count(), &|piece| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        let x = unsafe { pieces.get(piece) };
        let y = &y[piece * PIECE..][..x.len()];
        dispatch(context.isa, function(x, y));
    })
}

/// Element-wise functions of two operands; the result replaces the first.
enum Pair<'a> {
    Swiglu(&'a mut [f32], &'a [f32]),
    Add(&'a mut [f32], &'a [f32]),
}

impl Kernel for Pair<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        match self {
            Pair::Swiglu(x, y) => each(
                set,
                x,
                y,
                #[inline(always)]
                |x: L, y| silu(x).mul(y),
            ),
            Pair::Add(x, y) => each(
                set,
                x,
                y,
                #[inline(always)]
                |x: L, y| x.add(y),
            ),
        }
    }
}

#[inline(always)]
fn each<L: Lanes>(set: L::Set, x: &mut [f32], y: &[f32], function: impl Fn(L, L) -> L) {
    for (x, y) in x.chunks_mut(LANES).zip(y.chunks(LANES)) {
        function(L::load_part(set, x), L::load_part(set, y)).store_part(x);
    }
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Some(first) = self.0.first().copied() else { return };
        let mut largest = L::splat(set, first);
        let mut chunks = self.0.chunks_exact(LANES);
        for x in &mut chunks {
            largest = L::load_part(set, x).max(largest);
        }
        let mut largest = largest.largest();
        for x in chunks.remainder() {
            largest = if *x > largest { *x } else { largest };
        }
        let shift = L::splat(set, largest);
        let mut sums = L::zero(set);
        for chunk in self.0.chunks_mut(LANES) {
            let e = exp(L::load_part(set, chunk).sub(shift));
            e.store_part(chunk);
            // Read back, so that the lanes behind the end count as 0.
            sums = sums.add(L::load_part(set, chunk));
        }
        let factor = L::splat(set, 1.0 / sums.sum());
        for chunk in self.0.chunks_mut(LANES) {
            L::load_part(set, chunk).mul(factor).store_part(chunk);
        }
    }
}

#[cfg(test)]
mod tests;
