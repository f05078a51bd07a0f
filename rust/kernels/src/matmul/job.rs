//! The operands of a call, and the buffers reused from one call to the next.

use std::fmt::{Debug, Formatter, Result};

use super::activations::Activations;
use super::matrix::Matrix;
use super::words::WordRows;

/// Buffers for the input of a product in the forms that kernels read, reused by successive calls of `matmul`.
#[derive(Debug, Default)]
pub struct InputBuffers {
    /// For quantized weights.
    pub(super) activations: Activations,
    /// Activations for panels of plain weights: see `floats::panel`.
    pub(super) arranged: Vec<f32>,
    /// Activations as 16-bit integers.
    pub(super) words: WordRows,
    /// Results of the small products of low-rank changes.
    pub(super) low: Vec<f32>,
}

/// One product of a call.
pub struct Job<'a> {
    /// rows × columns.
    pub weights: &'a Matrix,
    /// tokens × rows, one row per token; overwritten.
    pub output: &'a mut [f32],
}

impl Debug for Job<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.debug_struct("Job").field("weights", self.weights).field("output", &self.output.len()).finish()
    }
}
