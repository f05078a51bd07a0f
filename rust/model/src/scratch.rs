//! What products with weights use besides their operands.

use llamacpu_kernels::matmul::InputBuffers;

use crate::adapters::AdaptedRows;

/// Buffers of products, and the adapters of the rows that go through them.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) input: InputBuffers,
    pub(crate) adapted: AdaptedRows,
    /// Products of inputs with the first matrices of adapters.
    pub(crate) low: Vec<f32>,
}

impl Scratch {
    /// The parts that adding the changes of adapters needs.
    pub(crate) fn parts(&mut self) -> (&AdaptedRows, &mut InputBuffers, &mut Vec<f32>) {
        (&self.adapted, &mut self.input, &mut self.low)
    }
}
