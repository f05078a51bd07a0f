//! The sizes and switches of a model. Every architecture is one `Config`, run by the one forward pass.

use llamacpu_kernels::rope::{RopeScaling, RopeSettings, RopeStyle};

use crate::Error;

/// Most layers of a model.
pub const LAYERS_LIMIT: usize = 512;
/// Most experts of a layer.
pub const EXPERTS_LIMIT: usize = 1024;
/// Most elements along one side of a matrix, entries of the vocabulary, or tokens of a context.
pub const SIZE_LIMIT: usize = 1 << 30;

/// How the router's scores become the weights of the chosen experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpertGating {
    /// Softmax over all experts, then the largest (Mixtral).
    Softmax,
    /// The logistic function of every score.
    Sigmoid,
    /// The largest scores, then softmax over these.
    SoftmaxSelected,
}

/// Everything that the forward pass needs to know besides the weights.
#[derive(Debug, Clone)]
pub struct Config {
    /// `general.architecture`, for messages only.
    pub architecture: String,
    /// Rows of the embedding and of the output matrix.
    pub vocab_size: usize,
    /// Tokens of context that the model was trained for: the default of a session.
    pub context_length: usize,
    /// Width of the residual stream.
    pub embedding_length: usize,
    /// Number of layers.
    pub layers: usize,
    /// Width of the feed-forward network (of one expert, where there are experts), per layer.
    pub feed_forward: Vec<usize>,
    /// Query heads, per layer.
    pub heads: Vec<usize>,
    /// Key and value heads, per layer; divides `heads`.
    pub kv_heads: Vec<usize>,
    /// Elements of one query or key head.
    pub key_size: usize,
    /// Elements of one value head.
    pub value_size: usize,
    /// Added to the mean square in RMS normalization.
    pub rms_epsilon: f32,
    /// Elements of a head that are rotated; the rest passes through.
    pub rope_size: usize,
    /// Base of the rotation frequencies.
    pub rope_base: f64,
    /// Which elements form a pair.
    pub rope_style: RopeStyle,
    /// How positions beyond the original training context are scaled.
    pub rope_scaling: RopeScaling,
    /// Factor of the attention scores; 0 means 1/sqrt(`key_size`).
    pub attention_scale: f32,
    /// Factor of the token embeddings (Granite; 1 elsewhere).
    pub embedding_scale: f32,
    /// Factor of what attention and feed-forward add to the residual stream (Granite; 1 elsewhere).
    pub residual_scale: f32,
    /// Factor of the logits (1 = off).
    pub logit_scale: f32,
    /// Experts of a layer; 0 for a dense model.
    pub experts: usize,
    /// Experts that each token uses.
    pub experts_used: usize,
    /// Whether the weights of the chosen experts are divided by their sum.
    pub expert_weights_norm: bool,
    /// Factor of the experts' weights; 0 and 1 mean none.
    pub expert_weights_scale: f32,
    /// How scores become weights.
    pub expert_gating: ExpertGating,
}

impl Config {
    /// Checks every field against its range, so that later arithmetic on sizes cannot surprise.
    pub fn validate(&self) -> Result<(), Error> {
        within("vocab_size", self.vocab_size, 1, SIZE_LIMIT)?;
        within("context_length", self.context_length, 1, SIZE_LIMIT)?;
        within("embedding_length", self.embedding_length, 1, SIZE_LIMIT)?;
        within("layers", self.layers, 1, LAYERS_LIMIT)?;
        within("key_size", self.key_size, 2, 1 << 16)?;
        within("value_size", self.value_size, 1, 1 << 16)?;
        within("rope_size", self.rope_size, 0, self.key_size)?;
        within("experts", self.experts, 0, EXPERTS_LIMIT)?;
        within("experts_used", self.experts_used, usize::from(self.experts > 0), self.experts)?;
        for (name, size) in [("key_size", self.key_size), ("rope_size", self.rope_size)] {
            if size % 2 != 0 {
                return Err(Error::Model(format!(
                    "{name} is {size}, but elements are rotated in pairs: expected an even number"
                )));
            }
        }
        per_layer("feed_forward", &self.feed_forward, self.layers)?;
        per_layer("heads", &self.heads, self.layers)?;
        per_layer("kv_heads", &self.kv_heads, self.layers)?;
        for (layer, (&heads, &kv_heads)) in self.heads.iter().zip(&self.kv_heads).enumerate() {
            if heads % kv_heads != 0 {
                return Err(Error::Model(format!(
                    "layer {layer} has {heads} query heads for {kv_heads} key and value heads: expected a multiple"
                )));
            }
            let widest = heads * self.key_size.max(self.value_size);
            within("heads times head size", widest, 1, SIZE_LIMIT)?;
        }
        if !(self.rms_epsilon.is_finite() && self.rms_epsilon > 0.0) {
            return Err(Error::Model(format!("rms_epsilon is {}: expected a positive number", self.rms_epsilon)));
        }
        for (name, value) in [
            ("attention_scale", self.attention_scale),
            ("embedding_scale", self.embedding_scale),
            ("residual_scale", self.residual_scale),
            ("logit_scale", self.logit_scale),
            ("expert_weights_scale", self.expert_weights_scale),
        ] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::Model(format!("{name} is {value}: expected a number that is not negative")));
            }
        }
        Ok(())
    }

    /// Factor of the attention scores.
    pub(crate) fn score_scale(&self) -> f32 {
        if self.attention_scale > 0.0 { self.attention_scale } else { 1.0 / (self.key_size as f32).sqrt() }
    }

    /// The rotation, with the divisors of `rope_freqs.weight` where the file has them.
    pub(crate) fn rope_settings(&self, factors: Option<Vec<f32>>) -> RopeSettings {
        RopeSettings {
            size: self.rope_size,
            base: self.rope_base,
            style: self.rope_style,
            scaling: self.rope_scaling,
            factors,
        }
    }

    /// The widest query, key, value and feed-forward rows of any layer, in this order.
    pub(crate) fn widths(&self) -> [usize; 4] {
        let most = |sizes: &[usize]| sizes.iter().copied().max().unwrap_or(0);
        let (heads, kv_heads) = (most(&self.heads), most(&self.kv_heads));
        [
            heads * self.key_size.max(self.value_size),
            kv_heads * self.key_size,
            kv_heads * self.value_size,
            most(&self.feed_forward),
        ]
    }
}

fn within(name: &str, value: usize, least: usize, most: usize) -> Result<(), Error> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(Error::Model(format!("{name} is {value}: expected {least} to {most}")))
}

fn per_layer(name: &str, values: &[usize], layers: usize) -> Result<(), Error> {
    if values.len() != layers {
        return Err(Error::Model(format!(
            "{name} has {} entries for {layers} layers: expected one a layer",
            values.len()
        )));
    }
    values.iter().try_for_each(|&value| within(name, value, 1, 1 << 28))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sound configuration of small sizes.
    pub(crate) fn config() -> Config {
        Config {
            architecture: "llama".to_owned(),
            vocab_size: 8,
            context_length: 100,
            embedding_length: 8,
            layers: 2,
            feed_forward: vec![16, 12],
            heads: vec![4, 2],
            kv_heads: vec![1, 2],
            key_size: 4,
            value_size: 6,
            rms_epsilon: 1e-5,
            rope_size: 4,
            rope_base: 10_000.0,
            rope_style: RopeStyle::Interleaved,
            rope_scaling: RopeScaling::None,
            attention_scale: 0.0,
            embedding_scale: 1.0,
            residual_scale: 1.0,
            logit_scale: 1.0,
            experts: 0,
            experts_used: 0,
            expert_weights_norm: true,
            expert_weights_scale: 1.0,
            expert_gating: ExpertGating::Softmax,
        }
    }

    #[test]
    fn buffers_fit_the_widest_layer() {
        assert!(config().validate().is_ok());
        assert_eq!(config().widths(), [24, 8, 12, 16]);
    }

    #[test]
    fn the_score_scale_defaults_to_the_root_of_the_head_size() {
        assert_eq!(config().score_scale(), 0.5);
        assert_eq!(Config { attention_scale: 0.3, ..config() }.score_scale(), 0.3);
    }
}
