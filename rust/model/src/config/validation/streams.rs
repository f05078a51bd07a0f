//! The settings of hyper-connections.

use super::within;
use crate::Error;
use crate::config::{Config, Input, NormKind, Norms};

/// Maximum number of residual streams.
const STREAMS_LIMIT: usize = 16;
/// Maximum number of times that a matrix is normalized.
const ITERATIONS_LIMIT: usize = 1000;

impl Config {
    pub(super) fn validate_streams(&self) -> Result<(), Error> {
        within("streams", self.streams, 0, STREAMS_LIMIT)?;
        within("stream_iterations", self.stream_iterations, usize::from(self.streams > 0), ITERATIONS_LIMIT)?;
        if self.streams == 0 {
            return Ok(());
        }
        let every = |values: &[usize]| values.iter().all(|&value| value > 0);
        let plain = self.norms == Norms::Before
            && self.norm == NormKind::Rms
            && !self.parallel
            && !self.experts_beside
            && self.input == Input::Tokens
            && self.residual_scale == 1.0
            && self.per_layer_input == 0
            && !self.layer_scale.contains(&true)
            && self.cross_layers.is_empty()
            && every(&self.heads)
            && every(&self.feed_forward);
        if plain && self.first_attention_norm && self.output_norm {
            return Ok(());
        }
        Err(Error::Model(
            "streams: expected a model that takes tokens, whose layers have attention and a network one after the other, \
             each with a norm before it, and no factors or inputs of their own"
                .to_owned(),
        ))
    }
}
