//! The sizes and switches of a model. Every architecture is one `Config`, run by the one forward pass.

use llamacpu_kernels::rope::{RopeScaling, RopeSettings, RopeStyle};

use crate::Error;
use crate::settings::{Choice, settings};

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

impl Choice for ExpertGating {
    const NAMES: &'static [(&'static str, Self)] =
        &[("softmax", Self::Softmax), ("sigmoid", Self::Sigmoid), ("softmax_selected", Self::SoftmaxSelected)];
}

/// How positions beyond the trained context are scaled; see [`RopeScaling`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeScalingKind {
    /// Not at all.
    None,
    /// By a factor.
    Linear,
    /// By YaRN.
    Yarn,
}

impl Choice for RopeScalingKind {
    const NAMES: &'static [(&'static str, Self)] =
        &[("none", Self::None), ("linear", Self::Linear), ("yarn", Self::Yarn)];
}

settings! {
    /// The rotation of queries and keys.
    pub struct RopeConfig {
        /// Elements of a head that are rotated; the rest passes through.
        size: usize as "rope_size",
        /// Base of the rotation frequencies.
        base: f64 as "rope_base" = 10_000.0,
        /// Which elements form a pair.
        style: RopeStyle as "rope_style" = RopeStyle::Interleaved,
        /// How positions beyond the original training context are scaled.
        scaling: RopeScalingKind as "rope_scaling" = RopeScalingKind::None,
        /// Context length over the original context length.
        factor: f64 as "rope_factor" = 1.0,
        /// Tokens of context before it was extended.
        original_context: f64 as "rope_original_context",
        /// How much of YaRN's ramp is used.
        ext_factor: f64 as "yarn_ext_factor" = 0.0,
        /// Factor of YaRN's magnitude.
        attn_factor: f64 as "yarn_attn_factor" = 1.0,
        /// Divides that magnitude by `1 + this · ln(factor) / 10`.
        log_multiplier: f64 as "yarn_log_multiplier" = 0.0,
        /// Rotations over the original context above which a pair keeps its frequency.
        beta_fast: f64 as "yarn_beta_fast" = 32.0,
        /// Rotations below which a frequency is divided by the whole factor.
        beta_slow: f64 as "yarn_beta_slow" = 1.0,
    }
}

settings! {
    /// Everything that the forward pass needs to know besides the weights.
    pub struct Config {
        /// `general.architecture`, for messages only.
        architecture: String,
        /// Rows of the embedding and of the output matrix.
        vocab_size: usize,
        /// Tokens of context that the model was trained for: the default of a session.
        context_length: usize,
        /// Width of the residual stream.
        embedding_length: usize,
        /// Number of layers.
        layers: usize,
        /// Width of the feed-forward network (of one expert, where there are experts), per layer.
        feed_forward: Vec<usize>,
        /// Query heads, per layer.
        heads: Vec<usize>,
        /// Key and value heads, per layer; divides `heads`.
        kv_heads: Vec<usize>,
        /// Elements of one query or key head.
        key_size: usize,
        /// Elements of one value head.
        value_size: usize,
        /// Added to the mean square in RMS normalization.
        rms_epsilon: f32,
        /// Factor of the attention scores; 0 means 1/sqrt(`key_size`).
        attention_scale: f32 = 0.0,
        /// Factor of the token embeddings (Granite; 1 elsewhere).
        embedding_scale: f32 = 1.0,
        /// Factor of what attention and feed-forward add to the residual stream (Granite; 1 elsewhere).
        residual_scale: f32 = 1.0,
        /// Factor of the logits (1 = off).
        logit_scale: f32 = 1.0,
        /// Experts of a layer; 0 for a dense model.
        experts: usize = 0,
        /// Experts that each token uses.
        experts_used: usize = 0,
        /// Whether the weights of the chosen experts are divided by their sum.
        expert_weights_norm: bool = true,
        /// Factor of the experts' weights; 0 and 1 mean none.
        expert_weights_scale: f32 = 1.0,
        /// How scores become weights.
        expert_gating: ExpertGating = ExpertGating::Softmax,
        ..{
            /// The rotation.
            rope: RopeConfig,
        }
    }
}

/// The sizes of one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerConfig {
    /// Query heads.
    pub(crate) heads: usize,
    /// Key and value heads.
    pub(crate) kv_heads: usize,
    /// Elements of one query or key head.
    pub(crate) key_size: usize,
    /// Elements of one value head.
    pub(crate) value_size: usize,
    /// Width of the feed-forward network, or of one expert.
    pub(crate) feed_forward: usize,
}

impl LayerConfig {
    /// Elements of all queries of a token.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.key_size
    }

    /// Elements of all keys of a token.
    pub(crate) fn key_width(&self) -> usize {
        self.kv_heads * self.key_size
    }

    /// Elements of all values of a token.
    pub(crate) fn value_width(&self) -> usize {
        self.kv_heads * self.value_size
    }

    /// Elements of what attention gives for a token.
    pub(crate) fn attended_width(&self) -> usize {
        self.heads * self.value_size
    }
}

impl RopeConfig {
    /// The rotation with the divisors of `rope_freqs.weight`, where the file has them.
    pub fn settings(&self, factors: Option<Vec<f32>>) -> RopeSettings {
        let scaling = match self.scaling {
            RopeScalingKind::None => RopeScaling::None,
            RopeScalingKind::Linear => RopeScaling::Linear { factor: self.factor },
            RopeScalingKind::Yarn => RopeScaling::Yarn {
                factor: self.factor,
                original_context: self.original_context,
                ext_factor: self.ext_factor,
                attn_factor: self.attn_factor,
                log_multiplier: self.log_multiplier,
                beta_fast: self.beta_fast,
                beta_slow: self.beta_slow,
            },
        };
        RopeSettings { size: self.size, base: self.base, style: self.style, scaling, factors }
    }
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
        within("rope_size", self.rope.size, 0, self.key_size)?;
        within("experts", self.experts, 0, EXPERTS_LIMIT)?;
        within("experts_used", self.experts_used, usize::from(self.experts > 0), self.experts)?;
        for (name, size) in [("key_size", self.key_size), ("rope_size", self.rope.size)] {
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

    /// The sizes of a layer.
    pub(crate) fn layer(&self, index: usize) -> LayerConfig {
        LayerConfig {
            heads: self.heads[index],
            kv_heads: self.kv_heads[index],
            key_size: self.key_size,
            value_size: self.value_size,
            feed_forward: self.feed_forward[index],
        }
    }

    /// The widest query, key, value and feed-forward rows of any layer, in this order.
    pub(crate) fn widths(&self) -> [usize; 4] {
        let most = |width: fn(&LayerConfig) -> usize| {
            (0..self.layers).map(|index| width(&self.layer(index))).max().unwrap_or(0)
        };
        [
            most(|layer| layer.query_width().max(layer.attended_width())),
            most(LayerConfig::key_width),
            most(LayerConfig::value_width),
            most(|layer| layer.feed_forward),
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
pub(crate) mod tests;
