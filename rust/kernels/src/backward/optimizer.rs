//! The optimizer (I. Loshchilov and F. Hutter, "Decoupled Weight Decay Regularization", 2019).

use super::elements::PIECE;
use super::pieces::for_pieces;
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::shared::{Pieces, SharedSlice};

/// One update by AdamW.
#[derive(Debug, Clone, Copy)]
pub struct AdamW {
    /// Factor of the gradients, such as 1 / number of targets.
    pub gradient_scale: f32,
    /// Decay rates of the averages of the gradients and of their squares.
    pub betas: (f32, f32),
    /// Learning rate over `1 - beta1^step`.
    pub rate: f32,
    /// `sqrt(1 - beta2^step)`: the root of the second moment is divided by it.
    pub correction: f32,
    /// Added to the root of the second moment.
    pub epsilon: f32,
    /// Factor of the parameters: 1 - learning rate × weight decay.
    pub decay: f32,
}

impl AdamW {
    /// Updates parameters and moments, and clears the gradients.
    ///
    /// # Errors
    /// `Error::Shape` if the lengths differ; `Error::Cancelled` if the context was interrupted, with all four undefined.
    pub fn update(
        &self,
        context: &Context,
        parameters: &mut [f32],
        gradients: &mut [f32],
        (first, second): (&mut [f32], &mut [f32]),
    ) -> Result<(), Error> {
        let len = parameters.len();
        if [gradients.len(), first.len(), second.len()] != [len; 3] {
            return Err(Error::Shape(format!("moments or gradients of another length than {len} parameters")));
        }
        let all = [parameters, gradients, first, second].map(|numbers| Pieces::new(numbers, PIECE));
        for_pieces(context, all[0].count(), &|piece, _| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let parts = all.each_ref().map(|numbers| unsafe { numbers.get(piece) });
            dispatch(context.isa, Update { adam: self, parts });
            Ok(())
        })
    }
}

struct Update<'a> {
    adam: &'a AdamW,
    parts: [&'a mut [f32]; 4],
}

impl Kernel for Update<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { adam, parts: [parameters, gradients, first, second] } = self;
        let of = |value| L::splat(set, value);
        let (scale, rate, decay) = (of(adam.gradient_scale), of(adam.rate), of(adam.decay));
        let (beta1, beta2) = (of(adam.betas.0), of(adam.betas.1));
        let (rest1, rest2) = (of(1.0 - adam.betas.0), of(1.0 - adam.betas.1));
        let parts = parameters.chunks_mut(LANES).zip(gradients.chunks_mut(LANES));
        for ((parameter, gradient), (first, second)) in parts.zip(first.chunks_mut(LANES).zip(second.chunks_mut(LANES)))
        {
            let g = L::load_part(set, gradient).mul(scale);
            let m = L::load_part(set, first).fma(beta1, g.mul(rest1));
            let v = L::load_part(set, second).fma(beta2, g.mul(g).mul(rest2));
            m.store_part(first);
            v.store_part(second);
            let root = root::<L>(set, v).div(of(adam.correction)).add(of(adam.epsilon));
            let step = m.mul(rate).div(root);
            L::load_part(set, parameter).mul(decay).sub(step).store_part(parameter);
            gradient.fill(0.0);
        }
    }
}

#[inline(always)]
fn root<L: Lanes>(set: L::Set, x: L) -> L {
    L::load(set, &x.to_array().map(f32::sqrt))
}

/// The Euclidean norm, summed in f64.
///
/// # Errors
/// `Error::Memory`; `Error::Cancelled` if the context was interrupted.
pub fn euclidean_norm(context: &Context, x: &[f32]) -> Result<f64, Error> {
    let mut sums = crate::memory::room(x.len().div_ceil(PIECE), "sums")?;
    sums.resize(x.len().div_ceil(PIECE), 0.0_f64);
    let shared = SharedSlice::new(&mut sums);
    for_pieces(context, x.len().div_ceil(PIECE), &|piece, _| {
        let part = &x[piece * PIECE..x.len().min((piece + 1) * PIECE)];
        // SAFETY: every piece has its own sum.
        let sum = unsafe { shared.part(piece, 1) };
        sum[0] = part.iter().map(|x| f64::from(*x) * f64::from(*x)).sum();
        Ok(())
    })?;
    Ok(sums.iter().sum::<f64>().sqrt())
}
