//! Element-wise functions and softmax.

mod functions;

use crate::Error;
use crate::context::Context;
use crate::cpu::Isa;
use crate::math::{Kernel, LANES, Lanes, dispatch, doubles, exp};
use crate::memory::room;
use crate::shared::Pieces;
pub use functions::Activation;
use functions::{Activate, Add, ClampedSwiglu, Gate, SoftCap};

/// Number of elements in one piece of work, a multiple of the lanes.
const PIECE: usize = 16 * 1024;

/// Computes `gate = silu(gate) * up`, with `silu(x) = x / (1 + exp(-x))` (N. Shazeer, "GLU Variants Improve Transformer", 2020).
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn swiglu(context: &Context, gate: &mut [f32], up: &[f32]) -> Result<(), Error> {
    gated(context, Activation::Silu, gate, up)
}

/// Computes `gate = activation(gate) * up`: SwiGLU, GeGLU, ReGLU and the like (N. Shazeer, "GLU Variants Improve Transformer",
/// 2020).
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn gated(context: &Context, activation: Activation, gate: &mut [f32], up: &[f32]) -> Result<(), Error> {
    pairwise(context, gate, up, "gate and up projections", |gate, up| {
        dispatch(context.isa, Gate { activation, values: gate, up });
    })
}

/// As [`gated`], but the result goes to `output`.
///
/// # Errors
/// As for `gated`.
pub fn gated_into(
    context: &Context,
    activation: Activation,
    (gate, up): (&[f32], &[f32]),
    output: &mut [f32],
) -> Result<(), Error> {
    into(context, (gate, up), output, "gate and up projections", |values, up| {
        dispatch(context.isa, Gate { activation, values, up });
    })
}

/// Computes `gate = gate * sigmoid(slope * gate) * (up + 1)`, after clamping `gate` to at most `limit` and `up` to the range
/// from `-limit` to `limit` (gpt-oss: slope 1.702, limit 7). NaN stays NaN.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn clamped_swiglu(context: &Context, gate: &mut [f32], up: &[f32], slope: f32, limit: f32) -> Result<(), Error> {
    pairwise(context, gate, up, "gate and up projections", |gate, up| {
        dispatch(context.isa, ClampedSwiglu { values: gate, up, slope, limit, offset: 1.0 });
    })
}

/// Computes `gate = silu(gate) * up`, after clamping `gate` to at most `limit` and `up` to the range from `-limit` to `limit`
/// (DeepSeek V4). NaN stays NaN.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn limited_swiglu(context: &Context, gate: &mut [f32], up: &[f32], limit: f32) -> Result<(), Error> {
    pairwise(context, gate, up, "gate and up projections", |gate, up| {
        dispatch(context.isa, ClampedSwiglu { values: gate, up, slope: 1.0, limit, offset: 0.0 });
    })
}

/// Computes `x = sqrt(ln(1 + exp(x)))`, in `f64`: the scores of DeepSeek V4's routers.
///
/// # Errors
/// `Error::Memory`.
pub fn sqrt_softplus(isa: Isa, x: &mut [f32]) -> Result<(), Error> {
    let mut powers: Vec<f64> = room(x.len(), "scores")?;
    powers.extend(x.iter().map(|&x| f64::from(x)));
    doubles::exp(isa, &mut powers);
    let mut logarithms: Vec<f64> = room(x.len(), "scores")?;
    logarithms.extend(powers.iter().map(|power| power + 1.0));
    doubles::ln(isa, &mut logarithms);
    for ((x, power), logarithm) in x.iter_mut().zip(powers).zip(logarithms) {
        let softplus = match f64::from(*x) {
            // The logarithm equals x in f32.
            large if large > 40.0 => large,
            // Its series, since 1 + exp(x) has lost digits.
            small if small < -12.0 => power * (1.0 - power / 2.0),
            _ => logarithm,
        };
        *x = softplus.sqrt() as f32;
    }
    Ok(())
}

/// Computes `x = activation(x)`.
///
/// # Errors
/// `Error::Cancelled` if the context was interrupted.
pub fn activate(context: &Context, activation: Activation, x: &mut [f32]) -> Result<(), Error> {
    in_pieces(context, x, |_, x| dispatch(context.isa, Activate { activation, x }))
}

/// Computes `x = cap * tanh(x / cap)`: close to x if it is small, never above the cap in magnitude (Gemma 2). `cap` is positive.
///
/// # Errors
/// `Error::Cancelled` if the context was interrupted.
pub fn soft_cap(context: &Context, x: &mut [f32], cap: f32) -> Result<(), Error> {
    in_pieces(context, x, |_, x| dispatch(context.isa, SoftCap { x, cap }))
}

/// Computes `x = y`, on all threads.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn copy(context: &Context, x: &mut [f32], y: &[f32]) -> Result<(), Error> {
    pairwise(context, x, y, "numbers", <[f32]>::copy_from_slice)
}

/// Computes `x = x + y`.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn add(context: &Context, x: &mut [f32], y: &[f32]) -> Result<(), Error> {
    pairwise(context, x, y, "summands", |x, y| dispatch(context.isa, Add { x, y }))
}

/// Computes `output = x + y`.
///
/// # Errors
/// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted.
pub fn add_into(context: &Context, (x, y): (&[f32], &[f32]), output: &mut [f32]) -> Result<(), Error> {
    into(context, (x, y), output, "summands", |x, y| dispatch(context.isa, Add { x, y }))
}

/// Computes `x = x * factor`.
///
/// # Errors
/// `Error::Cancelled` if the context was interrupted.
pub fn scale(context: &Context, x: &mut [f32], factor: f32) -> Result<(), Error> {
    in_pieces(context, x, |_, x| x.iter_mut().for_each(|x| *x *= factor))
}

/// Multiplies every row of `x` (`factors.len()` rows of equal length) by its factor.
///
/// # Errors
/// `Error::Shape` if `x` is not that many rows; `Error::Cancelled` if the context was interrupted.
pub fn scale_rows(context: &Context, x: &mut [f32], factors: &[f32]) -> Result<(), Error> {
    if x.is_empty() && factors.is_empty() {
        return Ok(());
    }
    if factors.is_empty() || !x.len().is_multiple_of(factors.len()) {
        return Err(Error::Shape(format!(
            "{} numbers and {} factors of rows; expected as many numbers for each factor",
            x.len(),
            factors.len()
        )));
    }
    let size = x.len() / factors.len();
    in_pieces(context, x, |first, x| {
        let mut done = 0;
        while done < x.len() {
            let row = (first + done) / size;
            let count = ((row + 1) * size - first - done).min(x.len() - done);
            x[done..done + count].iter_mut().for_each(|x| *x *= factors[row]);
            done += count;
        }
    })
}

/// Computes the softmax `x = exp(x - max(x)) / sum(exp(x - max(x)))`. An empty `x` is left alone. The softmax is undefined if
/// all values are negative infinity: they become NaN, as do values that include a NaN or positive infinity.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    dispatch(isa, Softmax(x));
}

/// Calls the function with every piece of `x` and the index of its first element.
fn in_pieces(context: &Context, x: &mut [f32], function: impl Fn(usize, &mut [f32]) + Sync) -> Result<(), Error> {
    let pieces = Pieces::new(x, PIECE);
    context.for_each(pieces.count(), &|piece| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        function(piece * PIECE, unsafe { pieces.get(piece) });
    })
}

/// Calls the function with every piece of `x` and the same part of `y`.
fn pairwise(
    context: &Context,
    x: &mut [f32],
    y: &[f32],
    what: &str,
    function: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Result<(), Error> {
    if x.len() != y.len() {
        return Err(Error::Shape(format!("{} and {} {what}; expected as many of each", x.len(), y.len())));
    }
    in_pieces(context, x, |first, x| function(x, &y[first..][..x.len()]))
}

/// Calls the function with every piece of a copy of `x` in `output` and the same part of `y`: one pass over memory, since the
/// copy of a piece is still in the cache.
fn into(
    context: &Context,
    (x, y): (&[f32], &[f32]),
    output: &mut [f32],
    what: &str,
    function: impl Fn(&mut [f32], &[f32]) + Sync,
) -> Result<(), Error> {
    if x.len() != y.len() || x.len() != output.len() {
        return Err(Error::Shape(format!(
            "{} and {} {what} into room for {}; expected as many of each",
            x.len(),
            y.len(),
            output.len()
        )));
    }
    in_pieces(context, output, |first, output| {
        output.copy_from_slice(&x[first..][..output.len()]);
        function(output, &y[first..][..output.len()]);
    })
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
            // Read back, so that the lanes beyond the end count as 0.
            sums = sums.add(L::load_part(set, chunk));
        }
        let factor = L::splat(set, 1.0 / sums.sum());
        for chunk in self.0.chunks_mut(LANES) {
            L::load_part(set, chunk).mul(factor).store_part(chunk);
        }
    }
}
