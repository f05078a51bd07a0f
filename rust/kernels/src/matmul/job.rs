//! What a call multiplies, and what it keeps from one call to the next.

use std::fmt::{Debug, Formatter, Result};

use super::activations::Activations;
use super::matrix::Matrix;

/// The input of a product in the forms that kernels read: memory that calls of `matmul` share, one call after the other.
#[derive(Debug, Default)]
pub struct InputBuffers {
    /// For quantized weights.
    pub(super) activations: Activations,
    /// Activations for panels of plain weights: see `floats::panel`.
    pub(super) arranged: Vec<f32>,
}

/// One product of a call.
pub struct Job<'a> {
    /// rows × columns.
    pub weights: &'a Matrix,
    /// tokens × rows, row per token; overwritten.
    pub output: &'a mut [f32],
}

impl Debug for Job<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> Result {
        formatter.debug_struct("Job").field("weights", self.weights).field("output", &self.output.len()).finish()
    }
}
