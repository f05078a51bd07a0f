//! The shape of a trainer, from which its memory follows.

/// The shape of a trainer.
#[derive(Debug, Clone)]
pub struct TrainerShape {
    /// Names from [`super::trainable`].
    pub targets: Vec<String>,
    /// Rows of A and columns of B.
    pub rank: usize,
    /// The most tokens of a step.
    pub tokens: usize,
    /// How many of the last layers keep their activations, rather than compute them again.
    pub kept_layers: usize,
    /// Whether products with quantized weights are computed in floats. Otherwise activations are rounded to 8 bits in the
    /// forward pass, just as when the model runs, and gradients and weights to 8 bits in the backward pass.
    pub exact: bool,
}
