//! The operands of a call with several products: batches of tokens, each shared by one or more matrices.

use super::matrix::Matrix;
use super::output::Output;
use super::placed::Placed;

/// Tokens, and the matrices they are multiplied with. All sizes have been checked.
pub(super) struct Batch<'a> {
    /// Activations, from the first token's first element on.
    pub(super) input: &'a [f32],
    /// Elements from one token to the next.
    pub(super) stride: usize,
    /// At least 1.
    pub(super) tokens: usize,
    pub(super) products: Vec<Product<'a>>,
}

/// One matrix and the destination of its results.
pub(super) struct Product<'a> {
    pub(super) weights: &'a Matrix,
    pub(super) output: Output<'a>,
    /// What is added to the results.
    pub(super) addition: Option<&'a Placed<'a>>,
}
