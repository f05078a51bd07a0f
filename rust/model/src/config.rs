//! The sizes and switches of a model. Every architecture is one `Config`, run by the one forward pass.

mod choices;
mod layer;
mod validation;

use llamacpu_kernels::rope::{RopeScaling, RopeSettings, RopeStyle};

pub use choices::{
    Activation, ExpertGating, Gate, GroupScore, NormKind, Norms, QueryKeyNorm, RopeScalingKind, Rotation,
};
pub(crate) use layer::{LayerConfig, Sight};

use crate::settings::settings;

/// Most layers of a model.
pub const LAYERS_LIMIT: usize = 512;
/// Most experts of a layer.
pub const EXPERTS_LIMIT: usize = 1024;
/// Most elements along one side of a matrix, entries of the vocabulary, or tokens of a context.
pub const SIZE_LIMIT: usize = 1 << 30;

settings! {
    /// The rotation of queries and keys.
    pub struct RopeConfig {
        /// Elements of a head that are rotated; the rest passes through.
        size: usize as "rope_size",
        /// Base of the rotation frequencies.
        base: f64 as "rope_base" = 10_000.0,
        /// Base of the local rotation, which is not scaled; 0 means that of the global one.
        local_base: f64 as "rope_local_base" = 0.0,
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
        /// Whether the ramp between these begins and ends at whole pairs.
        truncate: bool as "yarn_truncate" = true,
    }
}

settings! {
    /// Everything that the forward pass needs to know besides the weights.
    pub struct Config {
        /// `general.architecture`, for messages only.
        architecture: String,
        /// Rows of the output matrix, and of the embedding up to `extra_embeddings`.
        vocab_size: usize,
        /// Tokens of context that the model was trained for: the default of a session.
        context_length: usize,
        /// Width of the residual stream.
        embedding_length: usize,
        /// Number of layers.
        layers: usize,
        /// Rows of the embedding behind the vocabulary, which stand for no text.
        extra_embeddings: usize = 0,
        /// Whether an embedding of its own is added for each of the `context_length` positions.
        learned_positions: bool = false,
        /// Rows of the embedding of token types, of which the first is added to every token; 0 for none.
        token_types: usize = 0,
        /// Whether the sum of the embeddings is normalized.
        embedding_norm: bool = false,
        /// Whether a token sees only those before it; otherwise a session holds one text, read by one step.
        causal: bool = true,
        /// The farthest distance with a bias of its own in attention that adds biases of relative positions; 0 for others.
        relative_positions: usize = 0,
        /// Into how many buckets these distances fall in each direction, the far ones logarithmically; 0: each has its own.
        relative_buckets: usize = 0,
        /// Scores that a classifier gives of a state; 0 for no classifier.
        classes: usize = 0,
        /// The function between the two matrices of the classifier.
        classifier_activation: Activation = Activation::Tanh,
        /// Whether there is a norm behind the last layer.
        output_norm: bool = true,
        /// Whether the last states become logits.
        output: bool = true,
        /// Width of the feed-forward network, per layer; 0 for a layer without one.
        feed_forward: Vec<usize>,
        /// Query heads, per layer; 0 for a layer without attention.
        heads: Vec<usize>,
        /// Key and value heads, per layer; divides `heads`. 0 where a matrix stands in the place of attention.
        kv_heads: Vec<usize>,
        /// Elements of one query or key head.
        key_size: usize,
        /// Elements of one value head.
        value_size: usize,
        /// Size of the common latent vector that keys and values are made of; 0 for keys and values of their own.
        latent_size: usize = 0,
        /// Size of the latent vector that queries are made of; 0 for one matrix.
        query_latent_size: usize = 0,

        /// How vectors are normalized.
        norm: NormKind = NormKind::Rms,
        /// Added to the mean square or to the variance in normalization.
        norm_epsilon: f32,
        /// Where a block has its norms.
        norms: Norms = Norms::Before,
        /// Whether the first layer has a norm before attention, as the others have; the embedding may have one in its place.
        first_attention_norm: bool = true,
        /// Whether the feed-forward network stands beside attention and not behind it.
        parallel: bool = false,
        /// The name of the norm before the feed-forward network in the file.
        feed_forward_norm: String = "ffn_norm".to_owned(),
        /// How queries and keys are normalized, per layer; no entries: in no layer.
        query_key_norm: Vec<QueryKeyNorm> = Vec::new(),

        /// By which rotation queries and keys are turned, per layer; no entries: all by the global one.
        rotation: Vec<Rotation> = Vec::new(),
        /// How many tokens each token sees, itself included, per layer; 0 and no entries: all before it.
        window: Vec<usize> = Vec::new(),
        /// Tokens of a chunk, per layer: a token sees those of its chunk alone; 0 and no entries: no chunks.
        chunk: Vec<usize> = Vec::new(),
        /// Factor of the attention scores; 0 means 1/sqrt(`key_size`).
        attention_scale: f32 = 0.0,
        /// How much the scores grow with the position, per layer: queries are multiplied by
        /// `1 + this · ln(1 + floor((position + temperature_offset) / temperature_length))`.
        temperature: Vec<f64> = Vec::new(),
        /// Tokens after which they grow.
        temperature_length: usize = 0,
        /// Added to the position there.
        temperature_offset: usize = 0,
        /// Scores become `this · tanh(score / this)`; 0 means that they stay.
        attention_soft_cap: f32 = 0.0,

        /// Whether the feed-forward networks have a gate, and where.
        gate: Gate = Gate::Own,
        /// The function inside of the feed-forward networks.
        activation: Activation = Activation::Silu,

        /// Factor of the token embeddings (1 = off).
        embedding_scale: f32 = 1.0,
        /// Factor of what attention and feed-forward add to the residual stream (1 = off).
        residual_scale: f32 = 1.0,
        /// Factor of the logits (1 = off).
        logit_scale: f32 = 1.0,
        /// Logits become `this · tanh(logit / this)`; 0 means that they stay.
        logit_soft_cap: f32 = 0.0,

        /// Experts of a layer that has a router; 0 for a dense model.
        experts: usize = 0,
        /// Experts that each token uses.
        experts_used: usize = 0,
        /// Width of one expert; 0 means `feed_forward`.
        expert_feed_forward: usize = 0,
        /// Width of the network that all tokens use beside the experts; 0 for none.
        shared_feed_forward: usize = 0,
        /// Whether the weights of the chosen experts are divided by their sum.
        expert_weights_norm: bool = true,
        /// Factor of the experts' weights; 0 and 1 mean none.
        expert_weights_scale: f32 = 1.0,
        /// Whether weights multiply what goes into an expert, and not what comes out.
        expert_weights_on_input: bool = false,
        /// How scores become weights.
        expert_gating: ExpertGating = ExpertGating::Softmax,
        /// Groups of experts, of which a token uses some; 0 and 1 mean no groups.
        expert_groups: usize = 0,
        /// Groups that a token uses.
        expert_groups_used: usize = 0,
        /// What makes a group good.
        expert_group_score: GroupScore = GroupScore::Best,

        /// Beginnings of the names of tensors in the file that are for something else than text.
        ignored_tensors: Vec<String> = Vec::new(),
        ..{
            /// The rotation.
            rope: RopeConfig,
        }
    }
}

impl RopeConfig {
    /// The rotation with the divisors of its frequencies, where the file has them.
    pub fn settings(&self, factors: Option<Vec<f32>>) -> RopeSettings {
        let scaling = match self.scaling {
            RopeScalingKind::None => RopeScaling::None,
            RopeScalingKind::Linear => RopeScaling::Linear { factor: self.factor },
            RopeScalingKind::LongRope => RopeScaling::Long { attn_factor: self.attn_factor },
            RopeScalingKind::Yarn => RopeScaling::Yarn {
                factor: self.factor,
                original_context: self.original_context,
                ext_factor: self.ext_factor,
                attn_factor: self.attn_factor,
                log_multiplier: self.log_multiplier,
                beta_fast: self.beta_fast,
                beta_slow: self.beta_slow,
                truncate: self.truncate,
            },
        };
        RopeSettings { size: self.size, base: self.base, style: self.style, scaling, factors }
    }

    /// The rotation of local layers.
    pub(crate) fn local_settings(&self) -> RopeSettings {
        let base = if self.local_base > 0.0 { self.local_base } else { self.base };
        RopeSettings { size: self.size, base, style: self.style, scaling: RopeScaling::None, factors: None }
    }
}

#[cfg(test)]
pub(crate) mod tests;
