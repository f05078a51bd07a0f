//! Layers whose heads differ, and layers that share keys and values.

use super::{HEAD_LIMIT, within};
use crate::Error;
use crate::config::{Config, LayerConfig};

impl Config {
    pub(super) fn validate_head_sizes(&self) -> Result<(), Error> {
        let differ = !self.key_sizes.is_empty() || !self.value_sizes.is_empty() || self.rope.local_size > 0;
        let special = self.value_norm || !self.kv_source.is_empty() || !self.keys_as_values.is_empty();
        if self.latent_size > 0 && (differ || special) {
            return Err(Error::Model(
                "latent_size is not 0: expected heads of one size, and neither normalized values, nor shared keys, nor \
                 keys that are values"
                    .to_owned(),
            ));
        }
        for index in 0..self.layers {
            let layer = self.layer(index);
            within("key_sizes", layer.key_size, 2, HEAD_LIMIT)?;
            within("value_sizes", layer.value_size, 1, HEAD_LIMIT)?;
            if !layer.key_size.is_multiple_of(2) {
                return Err(Error::Model(format!(
                    "key_sizes has {} for layer {index}, but elements are rotated in pairs: expected an even number",
                    layer.key_size
                )));
            }
            if self.rotated(&layer) > layer.key_size {
                return Err(Error::Model(format!(
                    "layer {index} rotates {} elements of heads that have {}: expected as many at most (rope_size, \
                     rope_local_size)",
                    self.rotated(&layer),
                    layer.key_size
                )));
            }
            if layer.keys_as_values && layer.key_size != layer.value_size {
                return Err(Error::Model(format!(
                    "keys_as_values: layer {index} has keys of {} elements and values of {}: expected as many",
                    layer.key_size, layer.value_size
                )));
            }
            self.validate_source(index, &layer)?;
        }
        Ok(())
    }

    /// Keys and values come from an earlier layer that has some, and that sees the same tokens.
    fn validate_source(&self, index: usize, layer: &LayerConfig) -> Result<(), Error> {
        if layer.kv_source == index {
            return Ok(());
        }
        let wrong = |what: &str| {
            Err(Error::Model(format!("layer {index} reads the keys and values of layer {}: {what}", layer.kv_source)))
        };
        if layer.kv_source > index {
            return wrong("expected an earlier layer");
        }
        let source = self.layer(layer.kv_source);
        let sizes = |layer: &LayerConfig| [layer.kv_heads, layer.key_size, layer.value_size];
        if source.kv_source != layer.kv_source || source.kv_heads == 0 {
            return wrong("expected a layer that has keys and values of its own");
        }
        if sizes(&source) != sizes(layer) || source.sight != layer.sight || self.relative_positions > 0 {
            return wrong("expected one with as many and as large heads, whose tokens see the same tokens");
        }
        Ok(())
    }
}
