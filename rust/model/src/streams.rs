//! Hyper-connections (Z. Xie et al., "mHC: Manifold-Constrained Hyper-Connections", arXiv:2512.24880): a token has several
//! residual streams. A block reads a weighted sum of them, its output is added to each with a weight, and a matrix mixes the
//! streams, whose rows and columns are made to sum to 1 (R. Sinkhorn and P. Knopp, 1967). All weights depend on the token.
//!
//! Sums run over the streams in order, and a row depends on its own numbers alone.

use llamacpu_kernels::activation::softmax;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::norm::{Norm, NormKind};

use crate::config::Config;
use crate::error::{Error, sized};
use crate::feed_forward::project;
use crate::routing::logistic;
use crate::rows::for_rows;
use crate::scratch::Scratch;
use crate::weights::Link;

const PURPOSE: &str = "residual streams";

/// Buffers of hyper-connections; each holds rows × the width given in its comment.
#[derive(Default)]
pub(crate) struct StreamBuffers {
    /// streams × embedding: the streams, normalized, or those that replace them
    whole: Vec<f32>,
    /// streams × (streams + 2): weights of the input, of the output, and the matrix
    weights: Vec<f32>,
}

impl StreamBuffers {
    /// The weights of rows, to keep those of some alone.
    pub(crate) fn weights(&mut self) -> &mut [f32] {
        &mut self.weights
    }
}

/// Sets every stream of every row to the row of `input`.
pub(crate) fn spread(context: &Context, config: &Config, input: &[f32], stream: &mut [f32]) -> Result<(), Error> {
    let width = config.embedding_length;
    for_rows(context, stream, config.stream_width(), &|row, streams| {
        streams.chunks_exact_mut(width).for_each(|own| own.copy_from_slice(&input[row * width..(row + 1) * width]));
        Ok(())
    })
}

/// Computes the weights of a link for all rows, and sets `output` (rows × embedding) to the weighted sums of their streams.
pub(crate) fn collapse(
    context: &Context,
    (config, link): (&Config, &Link),
    stream: &[f32],
    (buffers, scratch): (&mut StreamBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let (width, all, count) = (config.embedding_length, config.stream_width(), config.streams);
    let (rows, numbers) = (output.len() / width, link.map.rows());
    let normed = sized(&mut buffers.whole, rows.checked_mul(all), PURPOSE)?;
    let weights = sized(&mut buffers.weights, rows.checked_mul(numbers), PURPOSE)?;
    let norm =
        Norm { kind: NormKind::RootMeanSquare, size: all, weight: None, bias: None, epsilon: config.norm_epsilon };
    norm.apply(context, stream, normed)?;
    project(context, normed, rows, scratch, &mut [(&link.map, &mut *weights)])?;
    for_rows(context, weights, numbers, &|_, weights| {
        weigh(context.isa, config, link, weights);
        Ok(())
    })?;
    let weights = &*weights;
    for_rows(context, output, width, &|row, sum| {
        let streams = stream[row * all..(row + 1) * all].chunks_exact(width);
        sum.fill(0.0);
        for (stream, weight) in streams.zip(&weights[row * numbers..][..count]) {
            sum.iter_mut().zip(stream).for_each(|(sum, value)| *sum += weight * value);
        }
        Ok(())
    })
}

/// Replaces the streams by their mixtures, to which the output of a block (rows × embedding) is added, with the weights that
/// the last `collapse` computed.
pub(crate) fn mix(
    context: &Context,
    config: &Config,
    output: &[f32],
    buffers: &mut StreamBuffers,
    stream: &mut [f32],
) -> Result<(), Error> {
    let (width, all, count) = (config.embedding_length, config.stream_width(), config.streams);
    let numbers = count * (count + 2);
    let StreamBuffers { whole, weights } = buffers;
    let before = &mut whole[..stream.len()];
    before.copy_from_slice(stream);
    let (before, weights) = (&*before, &*weights);
    for_rows(context, stream, all, &|row, streams| {
        let weights = &weights[row * numbers..(row + 1) * numbers];
        let (of_output, matrix) = weights[count..].split_at(count);
        let output = &output[row * width..(row + 1) * width];
        for (to, stream) in streams.chunks_exact_mut(width).enumerate() {
            stream.iter_mut().zip(output).for_each(|(sum, value)| *sum = of_output[to] * value);
            for (from, before) in before[row * all..(row + 1) * all].chunks_exact(width).enumerate() {
                let weight = matrix[from * count + to];
                stream.iter_mut().zip(before).for_each(|(sum, value)| *sum += weight * value);
            }
        }
        Ok(())
    })
}

/// Makes weights of the numbers of a row.
fn weigh(isa: Isa, config: &Config, link: &Link, numbers: &mut [f32]) {
    let (count, epsilon) = (config.streams, config.stream_epsilon);
    for (index, (number, base)) in numbers.iter_mut().zip(&link.base).enumerate() {
        *number = *number * link.factors[(index / count).min(2)] + base;
    }
    let (of_input, rest) = numbers.split_at_mut(count);
    for weight in of_input {
        *weight = logistic(isa, *weight) + epsilon;
    }
    if rest.is_empty() {
        return;
    }
    let (of_output, matrix) = rest.split_at_mut(count);
    for weight in of_output {
        *weight = 2.0 * logistic(isa, *weight);
    }
    for row in matrix.chunks_exact_mut(count) {
        softmax(isa, row);
        for weight in row {
            *weight += epsilon;
        }
    }
    divide_columns(matrix, count, epsilon);
    for _ in 1..config.stream_iterations {
        for row in matrix.chunks_exact_mut(count) {
            let sum = row.iter().sum::<f32>() + epsilon;
            for weight in row {
                *weight /= sum;
            }
        }
        divide_columns(matrix, count, epsilon);
    }
}

/// Divides every column of a square matrix by its sum.
fn divide_columns(matrix: &mut [f32], count: usize, epsilon: f32) {
    for column in 0..count {
        let sum = matrix.iter().skip(column).step_by(count).sum::<f32>() + epsilon;
        matrix.iter_mut().skip(column).step_by(count).for_each(|weight| *weight /= sum);
    }
}
