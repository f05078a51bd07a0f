//! Linear projections and the feed-forward networks built from them, gated (N. Shazeer, "GLU Variants Improve
//! Transformer", arXiv:2002.05202) or plain.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::matmul::{Addition, GroupedJob, Job, Table, grouped_matmul_with, matmul_with};

use crate::activation::{Function, gated, plain};
use crate::adapters::{changes, changes_of_rows};
use crate::error::{Error, sized};
use crate::scratch::Scratch;
use crate::weights::{Linear, Network};

/// Buffers inside a feed-forward network.
#[derive(Default)]
pub(crate) struct NetworkBuffers {
    gate: Vec<f32>,
    up: Vec<f32>,
}

impl NetworkBuffers {
    pub(crate) fn views(&mut self, len: Option<usize>) -> Result<(&mut [f32], &mut [f32]), Error> {
        Ok((sized(&mut self.gate, len, "feed-forward buffers")?, sized(&mut self.up, len, "feed-forward buffers")?))
    }

    /// A single buffer that holds all gates followed by all ups.
    pub(crate) fn whole(&mut self, len: Option<usize>) -> Result<&mut [f32], Error> {
        sized(&mut self.gate, len, "feed-forward buffers")
    }
}

/// `output = W input + b` for several matrices that share the input.
pub(crate) fn project(
    context: &Context,
    input: &[f32],
    rows: usize,
    scratch: &mut Scratch,
    projections: &mut [(&Linear, &mut [f32])],
) -> Result<(), Error> {
    let Scratch { input: buffers, adapted, .. } = scratch;
    let additions = projections.iter().map(|(linear, _)| {
        let Linear { bias, slot, .. } = linear;
        Addition { bias: bias.as_deref(), changes: changes(adapted, rows, *slot) }
    });
    let additions: Vec<_> = additions.collect();
    let mut jobs: Vec<Job> =
        projections.iter_mut().map(|(linear, output)| Job { weights: &linear.matrix, output }).collect();
    Ok(matmul_with(context, input, rows, buffers, &mut jobs, &additions)?)
}

/// A linear map from some rows of an input to some rows of an output.
pub(crate) struct Projection<'a> {
    pub(crate) linear: &'a Linear,
    /// Number of rows, and the index of the first row on each side.
    pub(crate) tokens: usize,
    pub(crate) from: usize,
    pub(crate) to: usize,
    /// Number of the first row, as its adapters are looked up.
    pub(crate) row: usize,
}

/// `output = W input + b` for several matrices of the same size, each applied to its own rows; `set_of` gives the adapters
/// of a row.
pub(crate) fn project_rows(
    context: &Context,
    input: &[f32],
    output: &mut [f32],
    scratch: &mut Scratch,
    projections: &[Projection],
    set_of: &dyn Fn(usize) -> Option<usize>,
) -> Result<(), Error> {
    let Some(Projection { linear, .. }) = projections.first() else { return Ok(()) };
    let (columns, rows) = (linear.matrix.columns(), linear.matrix.rows());
    let jobs = projections.iter().map(|projection| GroupedJob {
        weights: &projection.linear.matrix,
        tokens: projection.tokens,
        input: (projection.from, 0),
        output: (projection.to, 0),
    });
    let jobs: Vec<_> = jobs.collect();
    let Scratch { input: buffers, adapted, .. } = scratch;
    let additions = projections.iter().map(|&Projection { linear, tokens, row, .. }| {
        let Linear { bias, slot, .. } = linear;
        let changes = changes_of_rows(adapted, tokens, *slot, &|token| set_of(row + token));
        Addition { bias: bias.as_deref(), changes }
    });
    let additions: Vec<_> = additions.collect();
    let (from, to) = (Table { numbers: input, width: columns }, Table { numbers: output, width: rows });
    Ok(grouped_matmul_with(context, from, to, buffers, &jobs, &additions)?)
}

/// `output = down(function(gate(input)) * up(input))`, or `down(function(up(input)))` without a gate.
pub(crate) fn run_network(
    context: &Context,
    function: Function,
    network: &Network,
    input: &[f32],
    rows: usize,
    (inner, scratch): (&mut NetworkBuffers, &mut Scratch),
    output: &mut [f32],
) -> Result<(), Error> {
    let (first, second) = inner.views(rows.checked_mul(network.up.rows()))?;
    if let Some(gate) = &network.gate {
        project(context, input, rows, scratch, &mut [(gate, &mut *first), (&network.up, &mut *second)])?;
        gated(context, function, first, second)?;
    } else {
        project(context, input, rows, scratch, &mut [(&network.up, &mut *first)])?;
        plain(context, function.activation, first)?;
    }
    project(context, first, rows, scratch, &mut [(&network.down, output)])
}
