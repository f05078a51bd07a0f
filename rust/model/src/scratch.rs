//! What products with weights use besides their operands.

use llamacpu_kernels::matmul::InputBuffers;

use crate::adapters::AdaptedRows;

/// Buffers of products, and the adapters of the rows that go through them.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) input: InputBuffers,
    pub(crate) adapted: AdaptedRows,
    /// Rows of the first matrices of adapters of the embedding.
    pub(crate) low: Vec<f32>,
}
