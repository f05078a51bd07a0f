//! Prepares weights before they are needed: work that the first product with a matrix would otherwise do.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{InputBuffers, Job, Matrix, matmul};

use crate::Error;
use crate::error::zeroed;
use crate::weights::Weights;

/// Size of each part in the file, in bytes.
pub(crate) fn part_bytes(weights: &Weights) -> Vec<usize> {
    weights.parts().map(|matrices| matrices.into_iter().map(Matrix::nbytes).sum()).collect()
}

/// Prepares the matrices of one part: multiplies each by a zero vector, which reads the matrix from the file and packs
/// it if no product has done so yet.
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
