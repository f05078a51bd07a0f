//! Root mean square normalization (B. Zhang and R. Sennrich, "Root Mean Square Layer Normalization", 2019).

use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::shared::Pieces;

/// Numbers that one piece of work should have at least, so that handing it over costs less than doing it.
const PIECE: usize = 16 * 1024;

/// Normalizes rows of `weight.len()` numbers: `output = input / sqrt(mean(input^2) + epsilon) * weight`.
///
/// # Errors
/// `Error::Shape` if `input` is not a whole number of rows or `output` has another length; `Error::Cancelled`.
pub fn rms_norm(
    context: &Context,
    input: &[f32],
    weight: &[f32],
    epsilon: f32,
    output: &mut [f32],
) -> Result<(), Error> {
    let size = weight.len();
    if size == 0 || !input.len().is_multiple_of(size) || output.len() != input.len() {
        return Err(Error::Shape(format!(
            "normalization of {} numbers into {} with {size} weights; expected equal lengths, a multiple of the weights",
            input.len(),
            output.len()
        )));
    }
    let rows_per_piece = PIECE.div_ceil(size);
    let output = Pieces::new(output, rows_per_piece * size);
    context.for_each(output.count(), &|piece| {
        // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
        let output = unsafe { output.get(piece) };
        let input = &input[piece * rows_per_piece * size..][..output.len()];
        dispatch(context.isa, Norm { input, weight, epsilon, output });
    })
}

struct Norm<'a> {
    input: &'a [f32],
    weight: &'a [f32],
    epsilon: f32,
    output: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let size = self.weight.len();
        for (input, output) in self.input.chunks_exact(size).zip(self.output.chunks_exact_mut(size)) {
            let mean = sum_of_squares::<L>(set, input) / size as f32;
            let factor = L::splat(set, 1.0 / (mean + self.epsilon).sqrt());
            for ((x, w), y) in input.chunks(LANES).zip(self.weight.chunks(LANES)).zip(output.chunks_mut(LANES)) {
                L::load_part(set, x).mul(factor).mul(L::load_part(set, w)).store_part(y);
            }
        }
    }
}

/// Sixteen interleaved sums, as all sums over floats of this crate.
#[inline(always)]
fn sum_of_squares<L: Lanes>(set: L::Set, x: &[f32]) -> f32 {
    let mut sums = L::zero(set);
    for x in x.chunks(LANES) {
        let x = L::load_part(set, x);
        sums = x.fma(x, sums);
    }
    sums.sum()
}

#[cfg(test)]
mod tests;
