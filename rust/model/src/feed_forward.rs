//! Projections, and the gated feed-forward network made of them (N. Shazeer, "GLU Variants Improve Transformer", 2020).

use llamacpu_kernels::activation::swiglu;
use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{InputBuffers, Job, matmul};

use crate::error::{Error, sized};
use crate::weights::{Linear, SwiGlu};

/// Buffers inside a gated feed-forward network.
#[derive(Default)]
pub(crate) struct Gated {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl Gated {
    pub(crate) fn views(&mut self, len: Option<usize>) -> Result<(&mut [f32], &mut [f32]), Error> {
        Ok((sized(&mut self.gate, len, "feed-forward buffers")?, sized(&mut self.up, len, "feed-forward buffers")?))
    }
}

/// `output = W input + b` for several matrices that share the input.
pub(crate) fn project(
    context: &Context,
    input: &[f32],
    rows: usize,
    scratch: &mut InputBuffers,
    projections: &mut [(&Linear, &mut [f32])],
) -> Result<(), Error> {
    let mut jobs: Vec<Job> =
        projections.iter_mut().map(|(linear, output)| Job { weights: &linear.matrix, output }).collect();
    matmul(context, input, rows, scratch, &mut jobs)?;
    for (linear, output) in projections {
        if let Some(bias) = &linear.bias {
            for row in output.chunks_exact_mut(bias.len()) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        }
    }
    Ok(())
}

/// `output = down(silu(gate(input)) * up(input))`.
pub(crate) fn run_network(
    context: &Context,
    network: &SwiGlu,
    input: &[f32],
    rows: usize,
    (gated, scratch): (&mut Gated, &mut InputBuffers),
    output: &mut [f32],
) -> Result<(), Error> {
    let (gate, up) = gated.views(rows.checked_mul(network.gate.matrix.rows()))?;
    project(context, input, rows, scratch, &mut [(&network.gate, &mut *gate), (&network.up, &mut *up)])?;
    swiglu(context, gate, up)?;
    project(context, gate, rows, scratch, &mut [(&network.down, output)])
}
