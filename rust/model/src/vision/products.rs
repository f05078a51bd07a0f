//! Products of the layers of a picture encoder.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::matmul::{Job, word_matmul};

use crate::error::Error;
use crate::feed_forward;
use crate::scratch::Scratch;
use crate::weights::Linear;

/// `output = W input + b` for several matrices that share the input. With `words`, those of F16 and BF16 are multiplied as 16-bit
/// integers.
pub(super) fn project(
    (context, words): (&Context, bool),
    input: &[f32],
    (rows, scratch): (usize, &mut Scratch),
    projections: &mut [(&Linear, &mut [f32])],
) -> Result<(), Error> {
    let (mut halves, mut biases, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for (linear, output) in projections {
        if words && matches!(linear.matrix.format(), Format::F16 | Format::BF16) {
            halves.push(Job { weights: &linear.matrix, output });
            biases.push(linear.bias.as_deref());
        } else {
            others.push((*linear, &mut **output));
        }
    }
    if !others.is_empty() {
        feed_forward::project(context, input, rows, scratch, &mut others)?;
    }
    Ok(word_matmul(context, input, rows, &mut scratch.input, &mut halves, &biases)?)
}
