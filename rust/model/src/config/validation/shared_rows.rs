//! The settings of attention whose rows are keys and values at once, and of its compressed entries.

use super::{HEAD_LIMIT, within};
use crate::Error;
use crate::config::{AttentionGate, Config, Input, LayerConfig, NormKind, QueryKeyNorm, Sight};

/// Maximum number of tokens that an entry stands for.
const COMPRESSION_LIMIT: usize = 1024;

impl Config {
    pub(super) fn validate_shared_rows(&self) -> Result<(), Error> {
        if !self.shared_rows {
            if self.output_groups > 0 || self.output_rank > 0 || !self.compression.is_empty() {
                return Err(Error::Model(
                    "output_groups, output_rank and compression: expected none of them without shared_rows".to_owned(),
                ));
            }
            return Ok(());
        }
        within("output_groups", self.output_groups, 1, HEAD_LIMIT)?;
        within("output_rank", self.output_rank, 1, HEAD_LIMIT)?;
        within("output_groups times output_rank", self.output_groups * self.output_rank, 1, HEAD_LIMIT * 16)?;
        within("query_latent_size", self.query_latent_size, 1, HEAD_LIMIT)?;
        let plain = self.causal
            && self.norm == NormKind::Rms
            && self.latent_size == 0
            && self.alibi == 0.0
            && self.query_key_value_limit == 0.0
            && self.attention_soft_cap == 0.0
            && self.attention_gate == AttentionGate::None
            && !self.value_norm
            && self.input == Input::Tokens
            && self.cross_layers.is_empty()
            && self.rope.sections.is_empty()
            && self.lent_layers.is_empty();
        if !plain {
            return Err(Error::Model(
                "shared_rows: expected a causal model that takes tokens, with norms by the root of the mean square, and \
                 with neither latent keys, biases, limits, caps and gates of attention, nor pictures"
                    .to_owned(),
            ));
        }
        (0..self.layers).try_for_each(|index| self.validate_shared_layer(index, &self.layer(index)))
    }

    fn validate_shared_layer(&self, index: usize, layer: &LayerConfig) -> Result<(), Error> {
        within("compression", layer.compression, 0, COMPRESSION_LIMIT)?;
        let wrong = |what: &str| Err(Error::Model(format!("shared_rows: layer {index} {what}")));
        if layer.heads == 0 || layer.kv_heads != 1 || layer.key_size != layer.value_size || layer.kv_source != index {
            return wrong("expected query heads that share one key of its own, which is as large as the value");
        }
        if !matches!(layer.sight, Sight::Window(_)) || layer.temperature != 0.0 || layer.keys_as_values {
            return wrong("expected a window, no temperature, and no keys_as_values");
        }
        if layer.query_key_norm != QueryKeyNorm::None {
            return wrong("expected no query_key_norm, since queries and rows have norms in any case");
        }
        if !layer.heads.is_multiple_of(self.output_groups) {
            return wrong("expected a number of heads that is a multiple of output_groups");
        }
        if layer.indexer && layer.compression == 0 {
            return wrong("chooses entries: expected compression above 0");
        }
        if layer.compression > 0 && self.rope.size > layer.key_size {
            return wrong("rotates more elements than its rows have");
        }
        Ok(())
    }
}
