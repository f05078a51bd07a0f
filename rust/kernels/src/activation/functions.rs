//! Functions of one or two values, on whole vectors.

use crate::math::{Kernel, LANES, Lanes, gelu, gelu_tanh, sigmoid, silu, tanh};

/// An activation function, applied between the matrix products of a feed-forward network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu,
    /// `x (1 + erf(x / sqrt(2))) / 2` (D. Hendrycks and K. Gimpel, "Gaussian Error Linear Units", 2016).
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`, from the same paper.
    GeluTanh,
    /// `x / (1 + exp(-1.702 x))`, from the same paper.
    GeluSigmoid,
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `max(x, 0)^2` (D. So et al., "Primer: Searching for Efficient Transformers", 2021); NaN stays NaN.
    ReluSquared,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
}

/// `x = activation(x)`.
pub(super) struct Activate<'a> {
    pub(super) activation: Activation,
    pub(super) x: &'a mut [f32],
}

impl Kernel for Activate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        match self.activation {
            Activation::Silu => one::<L, Silu>(set, self.x),
            Activation::Gelu => one::<L, Gelu>(set, self.x),
            Activation::GeluTanh => one::<L, GeluTanh>(set, self.x),
            Activation::GeluSigmoid => one::<L, GeluSigmoid>(set, self.x),
            Activation::Relu => one::<L, Relu>(set, self.x),
            Activation::ReluSquared => one::<L, ReluSquared>(set, self.x),
            Activation::Sigmoid => one::<L, Sigmoid>(set, self.x),
            Activation::Tanh => one::<L, Tanh>(set, self.x),
        }
    }
}

/// `values = activation(values) * up`.
pub(super) struct Gate<'a> {
    pub(super) activation: Activation,
    pub(super) values: &'a mut [f32],
    pub(super) up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { activation, values: gate, up } = self;
        match activation {
            Activation::Silu => two::<L, Times<Silu>>(set, gate, up),
            Activation::Gelu => two::<L, Times<Gelu>>(set, gate, up),
            Activation::GeluTanh => two::<L, Times<GeluTanh>>(set, gate, up),
            Activation::GeluSigmoid => two::<L, Times<GeluSigmoid>>(set, gate, up),
            Activation::Relu => two::<L, Times<Relu>>(set, gate, up),
            Activation::ReluSquared => two::<L, Times<ReluSquared>>(set, gate, up),
            Activation::Sigmoid => two::<L, Times<Sigmoid>>(set, gate, up),
            Activation::Tanh => two::<L, Times<Tanh>>(set, gate, up),
        }
    }
}

/// `x = x + y`.
pub(super) struct Add<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        two::<L, Sum>(set, self.x, self.y);
    }
}

/// `gate = gate * sigmoid(slope * gate) * (up + offset)` of clamped operands.
pub(super) struct ClampedSwiglu<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) up: &'a [f32],
    pub(super) slope: f32,
    pub(super) limit: f32,
    pub(super) offset: f32,
}

impl Kernel for ClampedSwiglu<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let (slope, offset) = (L::splat(set, self.slope), L::splat(set, self.offset));
        let (limit, negative) = (L::splat(set, self.limit), L::splat(set, -self.limit));
        for (gate, up) in self.values.chunks_mut(LANES).zip(self.up.chunks(LANES)) {
            // This order keeps NaN.
            let x = limit.min(L::load_part(set, gate));
            let y = negative.max(limit.min(L::load_part(set, up)));
            x.mul(sigmoid(x.mul(slope))).mul(y.add(offset)).store_part(gate);
        }
    }
}

/// `x = cap * tanh(x / cap)`.
pub(super) struct SoftCap<'a> {
    pub(super) x: &'a mut [f32],
    pub(super) cap: f32,
}

impl Kernel for SoftCap<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let cap = L::splat(set, self.cap);
        for x in self.x.chunks_mut(LANES) {
            tanh(L::load_part(set, x).div(cap)).mul(cap).store_part(x);
        }
    }
}

/// A function of one value.
trait Function {
    fn of<L: Lanes>(x: L) -> L;
}

/// A function of two values.
trait Pair {
    fn of<L: Lanes>(x: L, y: L) -> L;
}

#[inline(always)]
fn one<L: Lanes, F: Function>(set: L::Set, x: &mut [f32]) {
    for x in x.chunks_mut(LANES) {
        F::of(L::load_part(set, x)).store_part(x);
    }
}

#[inline(always)]
fn two<L: Lanes, F: Pair>(set: L::Set, x: &mut [f32], y: &[f32]) {
    for (x, y) in x.chunks_mut(LANES).zip(y.chunks(LANES)) {
        F::of(L::load_part(set, x), L::load_part(set, y)).store_part(x);
    }
}

struct Sum;
struct Times<F>(F);

impl Pair for Sum {
    #[inline(always)]
    fn of<L: Lanes>(x: L, y: L) -> L {
        x.add(y)
    }
}

impl<F: Function> Pair for Times<F> {
    #[inline(always)]
    fn of<L: Lanes>(x: L, y: L) -> L {
        F::of(x).mul(y)
    }
}

/// Gives a function of vectors a type name.
macro_rules! function {
    ($name:ident, $x:ident, $value:expr) => {
        struct $name;

        impl Function for $name {
            #[inline(always)]
            fn of<L: Lanes>($x: L) -> L {
                $value
            }
        }
    };
}

function!(Silu, x, silu(x));
function!(Gelu, x, gelu(x));
function!(GeluTanh, x, gelu_tanh(x));
function!(GeluSigmoid, x, x.mul(sigmoid(x.mul(L::splat(x.set(), 1.702)))));
function!(Relu, x, L::zero(x.set()).max(x));
function!(ReluSquared, x, {
    let positive = L::zero(x.set()).max(x);
    positive.mul(positive)
});
function!(Sigmoid, x, sigmoid(x));
function!(Tanh, x, tanh(x));
