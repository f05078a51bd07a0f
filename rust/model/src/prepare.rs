//! Preparing the weights before they are needed: what the first product with a matrix does otherwise.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix, matmul};

use crate::Error;
use crate::error::zeroed;
use crate::weights::Weights;

/// Bytes in the file, part by part.
pub(crate) fn part_bytes(weights: &Weights) -> Vec<usize> {
    weights.parts().map(|matrices| matrices.into_iter().map(Matrix::nbytes).sum()).collect()
}

/// Prepares the matrices of one part: each takes part in a product with nothing, which packs it if no product has yet and
/// reads it from the file.
pub(crate) fn prepare(context: &Context, weights: &Weights, part: usize) -> Result<(), Error> {
    let matrices = weights.parts().nth(part).ok_or_else(|| {
        Error::Argument(format!("part {part} of the weights: expected 0 to {}", weights.layers.len()))
    })?;
    let mut scratch = InputBuffers::default();
    for weights in matrices.into_iter().filter(|matrix| matrix.is_resident()) {
        let input = zeroed(Some(weights.columns()), "activations")?;
        let mut output = zeroed(Some(weights.rows()), "activations")?;
        matmul(context, &input, 1, &mut scratch, &mut [Job { weights, output: &mut output }])?;
    }
    Ok(())
}
