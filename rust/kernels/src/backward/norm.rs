//! The derivative of normalization.

use super::elements::PIECE;
use super::pieces::for_pieces;
use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::norm::{Norm, NormKind};
use crate::shared::Pieces;

impl Norm<'_> {
    /// Replaces the gradient with respect to the normalized rows by that with respect to the rows of `input`:
    /// `dx = (g - mean(g) - y mean(g y)) / deviation` with `g = gradient * weight` and `y` the row before its weight;
    /// without `mean(g)` for the root mean square.
    ///
    /// # Errors
    /// `Error::Shape` if `input` is not a whole number of rows or `gradient` has a different length; `Error::Cancelled` if
    /// the context was interrupted.
    pub fn backward(&self, context: &Context, input: &[f32], gradient: &mut [f32]) -> Result<(), Error> {
        let size = self.checked(self.size, input.len())?;
        if gradient.len() != input.len() {
            return Err(Error::Shape(format!(
                "a gradient of {} numbers for {}; expected as many",
                gradient.len(),
                input.len()
            )));
        }
        let rows = PIECE.div_ceil(size);
        let pieces = Pieces::new(gradient, rows * size);
        for_pieces(context, pieces.count(), &|piece, _| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let gradient = unsafe { pieces.get(piece) };
            let input = &input[piece * rows * size..][..gradient.len()];
            dispatch(context.isa, Backward { norm: self, first: piece * rows, input, gradient });
            Ok(())
        })
    }
}

struct Backward<'a> {
    norm: &'a Norm<'a>,
    first: usize,
    input: &'a [f32],
    gradient: &'a mut [f32],
}

impl Kernel for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { norm: Norm { kind, size, weight, epsilon, .. }, first, input, gradient } = self;
        let count = *size as f32;
        for (row, (x, gradient)) in input.chunks_exact(*size).zip(gradient.chunks_exact_mut(*size)).enumerate() {
            let weight = weight.map(|weight| &weight[(first + row) % (weight.len() / size) * size..][..*size]);
            let mean = match kind {
                NormKind::RootMeanSquare => 0.0,
                NormKind::MeanAndVariance => sum::<L>(set, x) / count,
            };
            let square = squares::<L>(set, x, mean) / count;
            let factor = L::splat(set, 1.0 / (square + epsilon).sqrt());
            let mean = L::splat(set, mean);
            let (mut sums, mut products) = (L::zero(set), L::zero(set));
            for (index, (x, g)) in x.chunks(LANES).zip(gradient.chunks_mut(LANES)).enumerate() {
                let y = L::load_part(set, x).sub(mean).mul(factor);
                let mut weighted = L::load_part(set, g);
                if let Some(weight) = weight {
                    weighted = weighted.mul(L::load_part(set, &weight[index * LANES..][..g.len()]));
                }
                weighted.store_part(g);
                // Lanes beyond the end have a gradient of 0.
                sums = sums.add(weighted);
                products = weighted.fma(y, products);
            }
            let along = L::splat(set, products.sum() / count);
            let constant = match kind {
                NormKind::RootMeanSquare => L::zero(set),
                NormKind::MeanAndVariance => L::splat(set, sums.sum() / count),
            };
            for (x, g) in x.chunks(LANES).zip(gradient.chunks_mut(LANES)) {
                let y = L::load_part(set, x).sub(mean).mul(factor);
                let rest = L::load_part(set, g).sub(constant).sub(y.mul(along));
                rest.mul(factor).store_part(g);
            }
        }
    }
}

#[inline(always)]
fn sum<L: Lanes>(set: L::Set, x: &[f32]) -> f32 {
    let mut sums = L::zero(set);
    for x in x.chunks(LANES) {
        sums = L::load_part(set, x).add(sums);
    }
    sums.sum()
}

#[inline(always)]
fn squares<L: Lanes>(set: L::Set, x: &[f32], mean: f32) -> f32 {
    let mut sums = L::zero(set);
    for x in x.chunks(LANES) {
        let mut padded = [mean; LANES];
        padded[..x.len()].copy_from_slice(x);
        let difference = L::load(set, &padded).sub(L::splat(set, mean));
        sums = difference.fma(difference, sums);
    }
    sums.sum()
}
