//! Checks every setting against its range, so that later arithmetic on sizes is safe.

mod heads;
mod indexer;
mod recurrent;
mod rows;
mod shared_rows;
mod streams;

use super::{Activation, AttentionGate, Config, EXPERTS_LIMIT, Gate, LAYERS_LIMIT, Norms, SIZE_LIMIT};
use crate::Error;

/// Maximum number of elements in a head or a latent vector.
const HEAD_LIMIT: usize = 1 << 16;
/// Maximum of any width given per layer.
const WIDTH_LIMIT: usize = 1 << 28;

impl Config {
    /// Checks every field against its range.
    ///
    /// # Errors
    /// `Error::Model` that describes the first invalid field.
    pub fn validate(&self) -> Result<(), Error> {
        within("vocab_size", self.vocab_size, 1, SIZE_LIMIT)?;
        within("extra_embeddings", self.extra_embeddings, 0, SIZE_LIMIT)?;
        within("context_length", self.context_length, 1, SIZE_LIMIT)?;
        within("embedding_length", self.embedding_length, 1, SIZE_LIMIT)?;
        within("layers", self.layers, 1, LAYERS_LIMIT)?;
        // The last layer drops rows that nobody wants.
        within("picture_layers", self.picture_layers, 0, self.layers - 1)?;
        within("key_size", self.key_size, 2, HEAD_LIMIT)?;
        within("value_size", self.value_size, 1, HEAD_LIMIT)?;
        within("latent_size", self.latent_size, 0, HEAD_LIMIT)?;
        within("query_latent_size", self.query_latent_size, 0, HEAD_LIMIT)?;
        within("rope_size", self.rope.size, 0, self.key_size)?;
        within("token_types", self.token_types, 0, SIZE_LIMIT)?;
        within("classes", self.classes, 0, WIDTH_LIMIT)?;
        self.validate_rows()?;
        self.validate_relative_positions()?;
        self.validate_cross_layers()?;
        within("rope_local_size", self.rope.local_size, 0, HEAD_LIMIT)?;
        within("per_layer_input", self.per_layer_input, 0, WIDTH_LIMIT)?;
        within("per_layer_input times layers", self.per_layer_input * self.layers, 0, WIDTH_LIMIT)?;
        within("temperature_length", self.temperature_length, 0, SIZE_LIMIT)?;
        within("temperature_offset", self.temperature_offset, 0, SIZE_LIMIT)?;
        let sizes =
            [("key_size", self.key_size), ("rope_size", self.rope.size), ("rope_local_size", self.rope.local_size)];
        for (name, size) in sizes {
            if size % 2 != 0 {
                return Err(Error::Model(format!(
                    "{name} is {size}, but elements are rotated in pairs: expected an even number"
                )));
            }
        }
        self.validate_layers()?;
        self.validate_experts()?;
        self.validate_shared_rows()?;
        self.validate_streams()?;
        if matches!(self.activation, Activation::ClampedSilu | Activation::LimitedSilu) && self.gate == Gate::None {
            return Err(Error::Model(
                "gate is \"none\": expected another with the activations \"clamped_silu\" and \"limited_silu\""
                    .to_owned(),
            ));
        }
        if (self.activation == Activation::LimitedSilu) != (self.activation_limit > 0.0) {
            return Err(Error::Model(format!(
                "activation_limit is {}: expected a positive number with the activation \"limited_silu\", and 0 with others",
                self.activation_limit
            )));
        }
        if !(self.norm_epsilon.is_finite() && self.norm_epsilon > 0.0) {
            return Err(Error::Model(format!("norm_epsilon is {}: expected a positive number", self.norm_epsilon)));
        }
        let factors = [
            ("output_norm_epsilon", self.output_norm_epsilon),
            ("attention_scale", self.attention_scale),
            ("attention_soft_cap", self.attention_soft_cap),
            ("query_key_value_limit", self.query_key_value_limit),
            ("embedding_scale", self.embedding_scale),
            ("residual_scale", self.residual_scale),
            ("logit_scale", self.logit_scale),
            ("logit_soft_cap", self.logit_soft_cap),
            ("expert_weights_scale", self.expert_weights_scale),
            ("activation_limit", self.activation_limit),
            ("stream_epsilon", self.stream_epsilon),
        ];
        factors.into_iter().try_for_each(|(name, value)| not_negative(name, f64::from(value)))?;
        not_negative("rope_local_base", self.rope.local_base)?;
        not_negative("alibi", self.alibi)?;
        self.temperature.iter().try_for_each(|&value| not_negative("temperature", value))
    }

    fn validate_layers(&self) -> Result<(), Error> {
        for (name, values) in
            [("feed_forward", &self.feed_forward), ("heads", &self.heads), ("kv_heads", &self.kv_heads)]
        {
            per_layer(name, values.len(), self.layers)?;
            values.iter().try_for_each(|&value| within(name, value, 0, WIDTH_LIMIT))?;
        }
        let optional = [
            ("query_key_norm", self.query_key_norm.len()),
            ("rotation", self.rotation.len()),
            ("window", self.window.len()),
            ("chunk", self.chunk.len()),
            ("temperature", self.temperature.len()),
            ("indexer", self.indexer.len()),
            ("compression", self.compression.len()),
            ("key_sizes", self.key_sizes.len()),
            ("value_sizes", self.value_sizes.len()),
            ("kv_source", self.kv_source.len()),
            ("keys_as_values", self.keys_as_values.len()),
            ("layer_scale", self.layer_scale.len()),
            ("recurrent_heads", self.recurrent_heads.len()),
            ("row_window", self.row_window.len()),
        ];
        for (name, entries) in optional.into_iter().filter(|(_, entries)| *entries > 0) {
            per_layer(name, entries, self.layers)?;
        }
        self.validate_head_sizes()?;
        self.validate_indexer()?;
        for (layer, (&heads, &kv_heads)) in self.heads.iter().zip(&self.kv_heads).enumerate() {
            if kv_heads > 0 && (heads == 0 || heads % kv_heads != 0) {
                return Err(Error::Model(format!(
                    "layer {layer} has {heads} query heads for {kv_heads} key and value heads: expected a multiple"
                )));
            }
            let sizes = self.layer(layer);
            let widest = heads.saturating_mul(sizes.key_size.max(sizes.value_size));
            within("heads times head size", widest, 0, SIZE_LIMIT)?;
        }
        self.validate_recurrent()?;
        for layer in 0..self.layers {
            let of = |values: &[usize]| values.get(layer).copied().unwrap_or(0);
            let (window, chunk) = (of(&self.window), of(&self.chunk));
            if window > 0 && chunk > 0 {
                return Err(Error::Model(format!(
                    "layer {layer} has a window of {window} and chunks of {chunk}: expected one of the two"
                )));
            }
        }
        if !self.causal && (self.latent_size > 0 || self.chunk.iter().any(|&chunk| chunk > 0)) {
            return Err(Error::Model(
                "causal is false: expected neither chunks nor latent keys in a model whose tokens see those behind them"
                    .to_owned(),
            ));
        }
        if self.latent_size > 0 && (self.alibi > 0.0 || self.query_key_value_limit > 0.0) {
            return Err(Error::Model(
                "latent_size is not 0: expected neither linear biases nor a limit of queries, keys and values"
                    .to_owned(),
            ));
        }
        if self.latent_size > 0 && self.attention_gate != AttentionGate::None {
            return Err(Error::Model(
                "latent_size is not 0: expected no attention_gate, which latent attention lacks".to_owned(),
            ));
        }
        if self.parallel_norm && !self.parallel || self.second_attention_norm && self.norms != Norms::Stream {
            return Err(Error::Model(
                "parallel_norm and second_attention_norm: expected parallel blocks, and norms of the stream".to_owned(),
            ));
        }
        if self.temperature_length == 0 && self.temperature.iter().any(|&factor| factor != 0.0) {
            return Err(Error::Model(
                "temperature_length is 0: expected the tokens after which scores grow".to_owned(),
            ));
        }
        if self.latent_size > 0 && self.rope.size >= self.key_size {
            return Err(Error::Model(format!(
                "rope_size is {}: expected less than the {} elements of a head, of which the rest comes from latent vectors",
                self.rope.size, self.key_size
            )));
        }
        Ok(())
    }

    fn validate_cross_layers(&self) -> Result<(), Error> {
        if self.cross_layers.is_empty() {
            return Ok(());
        }
        within("cross_heads", self.cross_heads, 1, HEAD_LIMIT)?;
        within("cross_kv_heads", self.cross_kv_heads, 1, self.cross_heads)?;
        within("cross_feed_forward", self.cross_feed_forward, 1, WIDTH_LIMIT)?;
        within("cross_heads times head size", self.cross_heads.saturating_mul(self.key_size), 1, SIZE_LIMIT)?;
        let ascending = self.cross_layers.windows(2).all(|pair| pair[0] < pair[1]);
        let replaced = |&layer: &usize| layer < self.layers && self.heads[layer] == 0 && self.feed_forward[layer] == 0;
        if !ascending
            || !self.cross_layers.iter().all(replaced)
            || !self.cross_heads.is_multiple_of(self.cross_kv_heads)
        {
            return Err(Error::Model(
                "cross_layers: expected ascending layers that have no other attention and no other network, and query heads \
                 that are a multiple of the key and value heads"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn validate_relative_positions(&self) -> Result<(), Error> {
        within("relative_positions", self.relative_positions, 0, WIDTH_LIMIT)?;
        within("relative_buckets", self.relative_buckets, 0, WIDTH_LIMIT)?;
        let (buckets, most) = (self.relative_buckets, self.relative_positions);
        if most == 0 {
            return Ok(());
        }
        // Half of the buckets hold one distance each; the farther distances share the rest.
        if buckets > 0 && (buckets < 4 || most <= buckets / 2 + 1) {
            return Err(Error::Model(format!(
                "relative_positions is {most} with {buckets} buckets: expected at least 4 buckets, and distances beyond half of them"
            )));
        }
        let plain = (0..self.layers).all(|layer| self.heads[layer] == self.kv_heads[layer] && self.heads[layer] > 0);
        if self.causal || self.latent_size > 0 || !plain || self.window.iter().any(|&window| window > 0) {
            return Err(Error::Model(
                "relative_positions is not 0: expected layers whose heads each have keys, and whose tokens see the whole text"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn validate_experts(&self) -> Result<(), Error> {
        within("experts", self.experts, 0, EXPERTS_LIMIT)?;
        within("experts_used", self.experts_used, usize::from(self.experts > 0), self.experts)?;
        within("expert_feed_forward", self.expert_feed_forward, 0, WIDTH_LIMIT)?;
        within("shared_feed_forward", self.shared_feed_forward, 0, WIDTH_LIMIT)?;
        within("hashed_layers", self.hashed_layers, 0, if self.experts > 0 { self.layers } else { 0 })?;
        let groups = self.expert_groups;
        if groups <= 1 {
            return Ok(());
        }
        within("expert_groups", groups, 0, self.experts)?;
        within("expert_groups_used", self.expert_groups_used, 1, groups)?;
        if !self.experts.is_multiple_of(groups) || self.experts / groups * self.expert_groups_used < self.experts_used {
            return Err(Error::Model(format!(
                "{} experts in {groups} groups, of which a token uses {} and {} experts: expected groups of equal size \
                 that hold as many",
                self.experts, self.expert_groups_used, self.experts_used
            )));
        }
        Ok(())
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::Model(format!("{name} is {value}: expected {least} to {most}")))
}

fn not_negative(name: &str, value: f64) -> Result<(), Error> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Error::Model(format!("{name} is {value}: expected a number that is not negative")))
}

fn per_layer(name: &str, entries: usize, layers: usize) -> Result<(), Error> {
    if entries == layers {
        return Ok(());
    }
    Err(Error::Model(format!("{name} has {entries} entries for {layers} layers: expected one a layer")))
}
