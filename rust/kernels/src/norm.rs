//! Normalization of rows: by the root mean square (B. Zhang and R. Sennrich, "Root Mean Square Layer Normalization", 2019) or
//! by mean and variance (J. Ba et al., "Layer Normalization", 2016).

use crate::Error;
use crate::context::Context;
use crate::math::{Kernel, LANES, Lanes, dispatch};
use crate::shared::Pieces;

/// Minimum number of elements in a piece of work, so that handing it over costs less than doing it.
const PIECE: usize = 16 * 1024;

/// The formula of a normalization: what a row is divided by, and whether its mean is subtracted first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + epsilon)`.
    RootMeanSquare,
    /// `(x - mean(x)) / sqrt(mean((x - mean(x))^2) + epsilon)`.
    MeanAndVariance,
}

/// A normalization of rows of `size` elements, followed by `* weight + bias` where present.
///
/// Heads can be rows as well: if `size` is the number of elements of a head, every head is normalized separately.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a> {
    /// The formula.
    pub kind: NormKind,
    /// Number of elements in a row.
    pub size: usize,
    /// `size` weights for all rows; or `size` weights for each of several rows, one after the other and then starting over, as
    /// for heads with individual weights.
    pub weight: Option<&'a [f32]>,
    /// Biases, in the same form as the weights.
    pub bias: Option<&'a [f32]>,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// Normalizes rows of `weight.len()` elements: `output = input / sqrt(mean(input^2) + epsilon) * weight`.
///
/// # Errors
/// `Error::Shape` if `input` is not a whole number of rows or `output` has a different length; `Error::Cancelled` if the
/// context was interrupted.
pub fn rms_norm(
    context: &Context,
    input: &[f32],
    weight: &[f32],
    epsilon: f32,
    output: &mut [f32],
) -> Result<(), Error> {
    let (kind, size) = (NormKind::RootMeanSquare, weight.len());
    Norm { kind, size, weight: Some(weight), bias: None, epsilon }.apply(context, input, output)
}

impl Norm<'_> {
    /// Normalizes the rows of `input` into `output`.
    ///
    /// # Errors
    /// `Error::Shape` if `input` is not a whole number of rows, `output` has a different length, or weights or bias are not a
    /// whole number of rows; `Error::Cancelled` if the context was interrupted.
    pub fn apply(&self, context: &Context, input: &[f32], output: &mut [f32]) -> Result<(), Error> {
        let size = self.checked(self.size, input.len())?;
        if output.len() != input.len() {
            return Err(Error::Shape(format!(
                "normalization of {} numbers into {}; expected as many",
                input.len(),
                output.len()
            )));
        }
        let rows = PIECE.div_ceil(size);
        let output = Pieces::new(output, rows * size);
        context.for_each(output.count(), &|piece| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let output = unsafe { output.get(piece) };
            let input = &input[piece * rows * size..][..output.len()];
            dispatch(
                context.isa,
                Normalize { norm: self, first: piece * rows, step: size, input: Some(input), output },
            );
        })
    }

    /// Normalizes the first `size` of every `step` elements of `x`, and leaves the rest unchanged.
    ///
    /// # Errors
    /// `Error::Shape` if `step` is below `size`, the length of `x` is not a multiple of `step`, or weights or bias are not a
    /// whole number of rows; `Error::Cancelled` if the context was interrupted.
    pub fn apply_in_place(&self, context: &Context, x: &mut [f32], step: usize) -> Result<(), Error> {
        self.checked(step, x.len())?;
        let rows = PIECE.div_ceil(step);
        let pieces = Pieces::new(x, rows * step);
        context.for_each(pieces.count(), &|piece| {
            // SAFETY: `Context::for_each` hands every piece out once, so that no other thread holds it.
            let output = unsafe { pieces.get(piece) };
            dispatch(context.isa, Normalize { norm: self, first: piece * rows, step, input: None, output });
        })
    }

    /// Returns `step` after checking that `count` elements can be divided into rows that begin every `step` elements.
    pub(crate) fn checked(&self, step: usize, count: usize) -> Result<usize, Error> {
        let size = self.size;
        if size == 0 || step < size || !count.is_multiple_of(step) {
            return Err(Error::Shape(format!(
                "normalization of {size} of every {step} numbers of {count}; expected at least one, and a multiple"
            )));
        }
        for (what, numbers) in [("weights", self.weight), ("biases", self.bias)] {
            if let Some(numbers) = numbers
                && (numbers.is_empty() || !numbers.len().is_multiple_of(size))
            {
                return Err(Error::Shape(format!(
                    "normalization of rows of {size} numbers with {} {what}; expected a multiple",
                    numbers.len()
                )));
            }
        }
        Ok(step)
    }
}

/// Normalizes rows from row `first` on; without an input, those of the output are normalized in place.
struct Normalize<'a> {
    norm: &'a Norm<'a>,
    first: usize,
    step: usize,
    input: Option<&'a [f32]>,
    output: &'a mut [f32],
}

impl Kernel for Normalize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, set: L::Set) {
        let Self { norm: Norm { kind, size, weight, bias, epsilon }, first, step, input, output } = self;
        for (row, output) in output.chunks_exact_mut(step).enumerate() {
            let output = &mut output[..*size];
            let of_row = |numbers: &'_ [f32]| (first + row) % (numbers.len() / size) * size;
            let weight = weight.map(|weight| &weight[of_row(weight)..][..*size]);
            let bias = bias.map(|bias| &bias[of_row(bias)..][..*size]);
            let x = input.map_or(&*output, |input| &input[row * step..][..*size]);
            let mean = match kind {
                NormKind::RootMeanSquare => 0.0,
                NormKind::MeanAndVariance => sum::<L>(set, x) / *size as f32,
            };
            let square = match kind {
                NormKind::RootMeanSquare => sum_of_squares::<L>(set, x),
                NormKind::MeanAndVariance => sum_of_squared_differences::<L>(set, x, mean),
            } / *size as f32;
            let scale = Scale { mean, factor: 1.0 / (square + epsilon).sqrt(), weight, bias };
            match input {
                Some(input) => {
                    for (index, (x, y)) in input[row * step..].chunks(LANES).zip(output.chunks_mut(LANES)).enumerate() {
                        scale.of(L::load_part(set, &x[..y.len()]), index).store_part(y);
                    }
                }
                None => {
                    for (index, y) in output.chunks_mut(LANES).enumerate() {
                        scale.of(L::load_part(set, y), index).store_part(y);
                    }
                }
            }
        }
    }
}

/// The transformation of the elements of a row.
struct Scale<'a> {
    mean: f32,
    factor: f32,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
}

impl Scale<'_> {
    /// The transformed elements of vector `index` of the row.
    #[inline(always)]
    fn of<L: Lanes>(&self, x: L, index: usize) -> L {
        let set = x.set();
        let x = x.sub(L::splat(set, self.mean)).mul(L::splat(set, self.factor));
        match (self.weight, self.bias) {
            (None, None) => x,
            (Some(weight), None) => x.mul(part(set, weight, index)),
            (None, Some(bias)) => x.add(part(set, bias, index)),
            (Some(weight), Some(bias)) => x.fma(part(set, weight, index), part(set, bias, index)),
        }
    }
}

/// Vector `index` of a row.
#[inline(always)]
fn part<L: Lanes>(set: L::Set, row: &[f32], index: usize) -> L {
    let rest = &row[index * LANES..];
    L::load_part(set, &rest[..rest.len().min(LANES)])
}

/// Sixteen interleaved sums, like all sums over floats in this crate.
#[inline(always)]
fn sum_of_squares<L: Lanes>(set: L::Set, x: &[f32]) -> f32 {
    let mut sums = L::zero(set);
    for x in x.chunks(LANES) {
        let x = L::load_part(set, x);
        sums = x.fma(x, sums);
    }
    sums.sum()
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
fn sum_of_squared_differences<L: Lanes>(set: L::Set, x: &[f32], mean: f32) -> f32 {
    let mut sums = L::zero(set);
    let (vectors, rest) = x.as_chunks::<LANES>();
    for x in vectors {
        let difference = L::load(set, x).sub(L::splat(set, mean));
        sums = difference.fma(difference, sums);
    }
    // The lanes beyond the end have a difference of zero.
    let mut last = [mean; LANES];
    last[..rest.len()].copy_from_slice(rest);
    let difference = L::load(set, &last).sub(L::splat(set, mean));
    difference.fma(difference, sums).sum()
}
