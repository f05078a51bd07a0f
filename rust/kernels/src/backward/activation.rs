//! The derivatives of activation functions and soft caps.

use super::elements::PIECE;
use super::pieces::for_pieces;
use crate::Error;
use crate::activation::Activation;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch, exp, gelu, sigmoid, tanh};
use crate::shared::Pieces;

/// `sqrt(2 / pi)` twice, and three times 0.044715 of it.
const GELU_TANH: (f32, f32) = (1.595_769_2, 0.214_064_45);
/// `1 / sqrt(2 pi)`.
const DENSITY: f32 = 0.398_942_3;

/// From the gradient of `activation(gate) * up`: replaces `gate` and `up` by the gradients with respect to them, and the
/// gradient by `activation(gate) * up` itself, which the gradient of a matrix behind it needs.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn gated_backward(
    context: &Context,
    activation: Activation,
    gate: &mut [f32],
    up: &mut [f32],
    gradient: &mut [f32],
) -> Result<(), Error> {
    in_pieces(context, gate, up, gradient, &|gate, up, gradient| {
        dispatch(context.isa, Gated { activation, gate, up, gradient });
    })
}

/// From the gradient of `activation(x)`: replaces `x` by the gradient with respect to it, and the gradient by `activation(x)`.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn activate_backward(
    context: &Context,
    activation: Activation,
    x: &mut [f32],
    gradient: &mut [f32],
) -> Result<(), Error> {
    in_pieces(context, x, &mut [], gradient, &|x, _, gradient| {
        dispatch(context.isa, Plain { activation, x, gradient });
    })
}

/// As [`gated_backward`], for [`crate::activation::clamped_swiglu`]. What is clamped has a gradient of 0.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn clamped_swiglu_backward(
    context: &Context,
    gate: &mut [f32],
    up: &mut [f32],
    gradient: &mut [f32],
    (slope, limit): (f32, f32),
) -> Result<(), Error> {
    in_pieces(context, gate, up, gradient, &|gate, up, gradient| {
        dispatch(context.isa, Clamped { gate, up, gradient, slope, limit });
    })
}

/// From the gradient of `x = cap * tanh(y / cap)` and x itself: the gradient with respect to y, `gradient * (1 - (x / cap)^2)`.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn soft_cap_backward(context: &Context, x: &[f32], gradient: &mut [f32], cap: f32) -> Result<(), Error> {
    if x.len() != gradient.len() {
        return Err(Error::Shape(format!(
            "{} numbers and {} of a derivative; expected as many",
            x.len(),
            gradient.len()
        )));
    }
    let pieces = Pieces::new(gradient, PIECE);
    for_pieces(context, pieces.count(), &|piece, _| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        let gradient = unsafe { pieces.get(piece) };
        for (gradient, x) in gradient.iter_mut().zip(&x[piece * PIECE..]) {
            let share = x / cap;
            *gradient *= 1.0 - share * share;
        }
        Ok(())
    })
}

/// What is done with the pieces of three arrays.
type OfPieces<'a> = dyn Fn(&mut [f32], &mut [f32], &mut [f32]) + Sync + 'a;

/// Calls the function with the pieces of all three; `second` may be empty.
fn in_pieces(
    context: &Context,
    first: &mut [f32],
    second: &mut [f32],
    third: &mut [f32],
    function: &OfPieces,
) -> Result<(), Error> {
    if first.len() != third.len() || !(second.is_empty() || second.len() == first.len()) {
        return Err(Error::Shape(format!(
            "{}, {} and {} numbers of a derivative; expected as many of each",
            first.len(),
            second.len(),
            third.len()
        )));
    }
    let (first, second, third) = (Pieces::new(first, PIECE), Pieces::new(second, PIECE), Pieces::new(third, PIECE));
    for_pieces(context, first.count(), &|piece, _| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        let (first, second, third) = unsafe { (first.get(piece), second.get(piece), third.get(piece)) };
        function(first, second, third);
        Ok(())
    })
}

struct Gated<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a mut [f32],
    gradient: &'a mut [f32],
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { activation, gate, up, gradient } = self;
        let parts = gate.chunks_mut(LANES).zip(up.chunks_mut(LANES)).zip(gradient.chunks_mut(LANES));
        for ((gate, up), gradient) in parts {
            let (x, y, g) = (L::load_part(set, gate), L::load_part(set, up), L::load_part(set, gradient));
            let (value, slope) = value_and_slope(activation, x);
            g.mul(y).mul(slope).store_part(gate);
            g.mul(value).store_part(up);
            value.mul(y).store_part(gradient);
        }
    }
}

struct Plain<'a> {
    activation: Activation,
    x: &'a mut [f32],
    gradient: &'a mut [f32],
}

impl Kernel for Plain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        for (x, gradient) in self.x.chunks_mut(LANES).zip(self.gradient.chunks_mut(LANES)) {
            let (value, slope) = value_and_slope(self.activation, L::load_part(set, x));
            L::load_part(set, gradient).mul(slope).store_part(x);
            value.store_part(gradient);
        }
    }
}

struct Clamped<'a> {
    gate: &'a mut [f32],
    up: &'a mut [f32],
    gradient: &'a mut [f32],
    slope: f32,
    limit: f32,
}

impl Kernel for Clamped<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { gate, up, gradient, slope, limit } = self;
        let (zero, one, slope) = (L::zero(set), L::splat(set, 1.0), L::splat(set, slope));
        let (limit, negative) = (L::splat(set, limit), L::splat(set, -limit));
        let parts = gate.chunks_mut(LANES).zip(up.chunks_mut(LANES)).zip(gradient.chunks_mut(LANES));
        for ((gate, up), gradient) in parts {
            let (all, other) = (L::load_part(set, gate), L::load_part(set, up));
            let g = L::load_part(set, gradient);
            let x = limit.min(all);
            let y = negative.max(limit.min(other)).add(one);
            let share = sigmoid(x.mul(slope));
            let rest = one.sub(share).mul(share).mul(slope);
            let of_gate = g.mul(y).mul(x.fma(rest, share));
            let of_up = g.mul(x.mul(share));
            limit.select_below(all, zero, of_gate).store_part(gate);
            limit.select_below(other, zero, other.select_below(negative, zero, of_up)).store_part(up);
            x.mul(share).mul(y).store_part(gradient);
        }
    }
}

/// An activation function and its derivative.
#[inline(always)]
fn value_and_slope<L: Lanes>(activation: Activation, x: L) -> (L, L) {
    let set = x.set();
    let (zero, one) = (L::zero(set), L::splat(set, 1.0));
    match activation {
        Activation::Silu => of_sigmoid(x, one),
        Activation::GeluSigmoid => of_sigmoid(x, L::splat(set, 1.702)),
        Activation::Gelu => {
            let value = gelu(x);
            let below = normal(x);
            let density = exp(x.mul(x).mul(L::splat(set, -0.5))).mul(L::splat(set, DENSITY));
            (value, x.fma(density, below))
        }
        Activation::GeluTanh => {
            let square = x.mul(x);
            let inner = square.fma(L::splat(set, GELU_TANH.1 / 3.0), L::splat(set, GELU_TANH.0));
            let share = sigmoid(x.mul(inner));
            let growth = square.fma(L::splat(set, GELU_TANH.1), L::splat(set, GELU_TANH.0));
            (x.mul(share), x.mul(growth).mul(share.mul(one.sub(share))).add(share))
        }
        Activation::Relu => (zero.max(x), zero.select_below(x, one, zero)),
        Activation::ReluSquared => {
            let positive = zero.max(x);
            (positive.mul(positive), positive.add(positive))
        }
        Activation::Sigmoid => {
            let share = sigmoid(x);
            (share, share.mul(one.sub(share)))
        }
        Activation::Tanh => {
            let value = tanh(x);
            (value, one.sub(value.mul(value)))
        }
    }
}

/// `x sigmoid(factor x)` and its derivative.
#[inline(always)]
fn of_sigmoid<L: Lanes>(x: L, factor: L) -> (L, L) {
    let share = sigmoid(x.mul(factor));
    let value = x.mul(share);
    let rest = L::splat(x.set(), 1.0).sub(share).mul(factor);
    (value, value.fma(rest, share))
}

/// The normal distribution function, from `gelu(x) = x Phi(x)`; near 0 by its tangent.
#[inline(always)]
fn normal<L: Lanes>(x: L) -> L {
    let set = x.set();
    let size = x.max(L::zero(set).sub(x));
    let near = x.fma(L::splat(set, DENSITY), L::splat(set, 0.5));
    let small = L::splat(set, 1e-4);
    let divisor = size.select_below(small, small, x);
    size.select_below(small, near, gelu(x).div(divisor))
}
