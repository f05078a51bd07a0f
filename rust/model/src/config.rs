//! The sizes and switches of a model. Every architecture is a `Config`, and a single forward pass runs them all.

mod choices;
mod layer;
mod validation;

use llamacpu_kernels::rope::{RopeScaling, RopeSettings, RopeStyle};

pub(crate) use choices::choices;
pub use choices::{
    Activation, AttentionGate, ExpertGating, Gate, GroupScore, HeadOrder, Input, NormKind, Norms, QueryKeyNorm,
    RopeScalingKind, Rotation, StatesNorm,
};
pub(crate) use layer::{LayerConfig, Sight};

use crate::settings::settings;

/// Maximum number of layers in a model.
pub const LAYERS_LIMIT: usize = 512;
/// Maximum number of experts in a layer.
pub const EXPERTS_LIMIT: usize = 1024;
/// Maximum number of elements along one side of a matrix, of vocabulary entries, or of tokens in a context.
pub const SIZE_LIMIT: usize = 1 << 30;

settings! {
    /// The rotation of queries and keys.
    pub struct RopeConfig {
        /// Elements of a head that are rotated; the rest pass through unchanged.
        size: usize as "rope_size",
        /// Base of the rotation frequencies.
        base: f64 as "rope_base" = 10_000.0,
        /// Elements of a head that the local rotation turns; 0 means as many as the global one.
        local_size: usize as "rope_local_size" = 0,
        /// Base of the local rotation, which is not scaled; 0 means the base of the global one.
        local_base: f64 as "rope_local_base" = 0.0,
        /// Which elements form a pair.
        style: RopeStyle as "rope_style" = RopeStyle::Interleaved,
        /// How positions beyond the original training context are scaled.
        scaling: RopeScalingKind as "rope_scaling" = RopeScalingKind::None,
        /// Context length over the original context length.
        factor: f64 as "rope_factor" = 1.0,
        /// Context length in tokens before it was extended.
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
        /// Whether the ramp between these two limits begins and ends at whole pairs.
        truncate: bool as "yarn_truncate" = true,
        /// How many pairs are turned by time, row and column, in this order; empty: all by the position.
        sections: Vec<usize> as "rope_sections" = Vec::new(),
        /// Whether these pairs alternate, time, row, column, as far as row and column have some; else they follow each other.
        alternating: bool as "rope_sections_alternate" = false,
    }
}

settings! {
    /// Everything that the forward pass needs to know apart from the weights.
    pub struct Config {
        /// `general.architecture`, for messages only.
        architecture: String,
        /// Rows of the output matrix, and of the embedding up to `extra_embeddings`.
        vocab_size: usize,
        /// Context length in tokens that the model was trained for: the default for a session.
        context_length: usize,
        /// Width of the residual stream.
        embedding_length: usize,
        /// Number of layers.
        layers: usize,
        /// Embedding rows after the vocabulary, which do not stand for text.
        extra_embeddings: usize = 0,
        /// How many of the first layers are followed by further elements of the rows of pictures, which are added to the
        /// stream (L. Meng et al., "DeepStack", arXiv:2406.04334): a row has an embedding, then one such part for each.
        picture_layers: usize = 0,
        /// Whether a learned embedding is added for each of the `context_length` positions.
        learned_positions: bool = false,
        /// Rows of the token-type embedding, the first of which is added to every token; 0 for none.
        token_types: usize = 0,
        /// Whether the sum of the embeddings is normalized.
        embedding_norm: bool = false,
        /// Whether that norm has weights; otherwise it only scales.
        embedding_norm_weights: bool = true,
        /// Whether a token sees only the tokens before it; otherwise a session holds one text, which one step reads.
        causal: bool = true,
        /// The largest distance with its own bias in attention with relative-position biases; 0 if there are none.
        relative_positions: usize = 0,
        /// Number of buckets for these distances in each direction, logarithmic for the far ones; 0: one per distance.
        relative_buckets: usize = 0,
        /// Number of scores that a classifier computes from a state; 0 for no classifier.
        classes: usize = 0,
        /// The function between the two matrices of the classifier.
        classifier_activation: Activation = Activation::Tanh,
        /// Whether there is a norm after the last layer.
        output_norm: bool = true,
        /// Whether the final states are turned into logits.
        output: bool = true,
        /// Width of the feed-forward network, per layer; 0 for a layer without one.
        feed_forward: Vec<usize>,
        /// Query heads, per layer; 0 for a layer without attention.
        heads: Vec<usize>,
        /// Key and value heads, per layer; divides `heads`. 0 where a matrix takes the place of attention.
        kv_heads: Vec<usize>,
        /// Elements of one query or key head.
        key_size: usize,
        /// Elements of one value head.
        value_size: usize,
        /// `key_size` per layer, in models whose layers differ; empty: the same in all layers.
        key_sizes: Vec<usize> = Vec::new(),
        /// `value_size` per layer.
        value_sizes: Vec<usize> = Vec::new(),
        /// The layer whose keys and values a layer reads, per layer: itself, or an earlier one; empty: itself.
        kv_source: Vec<usize> = Vec::new(),
        /// Whether the projected keys, before norm and rotation, are the values, too, per layer; empty: in no layer.
        keys_as_values: Vec<bool> = Vec::new(),
        /// Whether each head of the values is normalized, without weights.
        value_norm: bool = false,
        /// Size of the shared latent vector from which keys and values are computed; 0 for separate keys and values.
        latent_size: usize = 0,
        /// Size of the latent vector from which queries are computed; 0 for a single matrix.
        query_latent_size: usize = 0,
        /// Whether one row per token is the key and the value of all heads, its last elements rotated (DeepSeek V4).
        shared_rows: bool = false,
        /// Groups of consecutive heads whose output goes through a matrix each, in attention with shared rows.
        output_groups: usize = 0,
        /// Rows of each of these matrices.
        output_rank: usize = 0,
        /// How many tokens each compressed entry stands for that attention with shared rows sees besides its window, per layer;
        /// 0 or empty for none.
        compression: Vec<usize> = Vec::new(),

        /// Whether a layer chooses the keys that its tokens see (sparse attention), per layer; otherwise it sees those that the
        /// last such layer before it has chosen. Empty: layers see all keys. With shared rows: whether a layer's compressed
        /// entries overlap, and tokens see those that it chooses; otherwise they see all of its own.
        indexer: Vec<bool> = Vec::new(),
        /// Heads that rank keys.
        indexer_heads: usize = 0,
        /// Elements of such a head.
        indexer_size: usize = 0,
        /// How many keys a token sees.
        indexer_top: usize = 0,
        /// Which elements form a pair in the rotation of such a head, whose first elements are rotated.
        indexer_rope_style: RopeStyle = RopeStyle::Interleaved,
        /// Epsilon of the norm of its keys, which is one by mean and variance.
        indexer_epsilon: f32 = 1e-6,

        /// Value heads of a gated delta network, per layer, which takes the place of attention; 0 or empty for none.
        recurrent_heads: Vec<usize> = Vec::new(),
        /// Query and key heads of these networks; divides their value heads.
        recurrent_key_heads: usize = 0,
        /// Elements of one of their query or key heads.
        recurrent_key_size: usize = 0,
        /// Elements of one of their value heads.
        recurrent_value_size: usize = 0,
        /// Which key head a value head uses.
        recurrent_head_order: HeadOrder = HeadOrder::Grouped,
        /// Tokens that the convolution before them sees.
        convolution_size: usize = 0,

        /// What enters the first layer.
        input: Input = Input::Tokens,
        /// Numbers per token of the states of another model that rows are made of; 0 if they come as they are.
        states_width: usize = 0,
        /// Whether these are normalized.
        states_norm: StatesNorm = StatesNorm::None,
        /// Whether the second half of a pair enters the residual stream normalized.
        normed_pairs: bool = false,
        /// How many rows each row sees besides those behind it, itself included, per layer; 0 or empty: all. Unlike those
        /// outside of a `window`, keys and values of the others are kept.
        row_window: Vec<usize> = Vec::new(),
        /// The layer of another model whose keys and values a layer reads, per layer; empty: layers have their own.
        lent_layers: Vec<usize> = Vec::new(),
        /// Numbers of the state of that other model that a matrix makes of the final one; 0 for none.
        next_width: usize = 0,

        /// Residual streams of hyper-connections (arXiv:2512.24880); 0 for a single ordinary one.
        streams: usize = 0,
        /// How often the matrix that mixes them is normalized.
        stream_iterations: usize = 0,
        /// Added to their weights, and to the sums that the matrix is divided by.
        stream_epsilon: f32 = 0.0,

        /// How vectors are normalized.
        norm: NormKind = NormKind::Rms,
        /// Added to the mean square or to the variance during normalization.
        norm_epsilon: f32,
        /// The same for the norms on the output of blocks; 0 means `norm_epsilon`.
        output_norm_epsilon: f32 = 0.0,
        /// Where the norms of a block are.
        norms: Norms = Norms::Before,
        /// Whether the first layer has a norm before attention, as the other layers do; the embedding may have one instead.
        first_attention_norm: bool = true,
        /// Whether norms have weights; otherwise they only scale, and centre where `norm` does.
        norm_weights: bool = true,
        /// Whether the feed-forward network runs in parallel with attention rather than after it.
        parallel: bool = false,
        /// Whether a parallel feed-forward network has a norm of its own rather than the one of attention.
        parallel_norm: bool = false,
        /// Whether the input of attention is added, and the stream normalized, a second time.
        second_attention_norm: bool = false,
        /// The name in the file of the norm before attention.
        attention_norm: String = "attn_norm".to_owned(),
        /// The name in the file of the norm before the feed-forward network.
        feed_forward_norm: String = "ffn_norm".to_owned(),
        /// How queries and keys are normalized, per layer; empty: in no layer.
        query_key_norm: Vec<QueryKeyNorm> = Vec::new(),

        /// Queries, keys and values are clamped to this distance from 0 when they have been projected; 0 leaves them.
        query_key_value_limit: f32 = 0.0,

        /// The exponent of the smallest slope of linear biases (ALiBi); 0 for no biases.
        alibi: f64 = 0.0,
        /// Which rotation is applied to queries and keys, per layer; empty: the global one in all layers.
        rotation: Vec<Rotation> = Vec::new(),
        /// How many tokens each token sees, itself included, per layer; 0 or empty: all tokens before it.
        window: Vec<usize> = Vec::new(),
        /// Tokens per chunk, per layer: a token sees only the tokens of its own chunk; 0 or empty: no chunks.
        chunk: Vec<usize> = Vec::new(),
        /// Factor of the attention scores; 0 means 1/sqrt(`key_size`).
        attention_scale: f32 = 0.0,
        /// How much the scores grow with the position, per layer: queries are multiplied by
        /// `1 + this · ln(1 + floor((position + temperature_offset) / temperature_length))`.
        temperature: Vec<f64> = Vec::new(),
        /// Number of tokens per step of that growth.
        temperature_length: usize = 0,
        /// Added to the position in that formula.
        temperature_offset: usize = 0,
        /// Scores become `this · tanh(score / this)`; 0 leaves them unchanged.
        attention_soft_cap: f32 = 0.0,

        /// Whether the output of attention is multiplied by the logistic function of a projection of its input.
        attention_gate: AttentionGate = AttentionGate::None,

        /// Whether the feed-forward networks have a gate, and where.
        gate: Gate = Gate::Own,
        /// The activation function inside the feed-forward networks.
        activation: Activation = Activation::Silu,
        /// What the activation clamps its operands to, if it is `limited_silu`.
        activation_limit: f32 = 0.0,

        /// Scale of the token embeddings (1 = off).
        embedding_scale: f32 = 1.0,
        /// Scale of what attention and the feed-forward network add to the residual stream (1 = off).
        residual_scale: f32 = 1.0,
        /// Whether a layer multiplies the stream by a factor from the file at its end, per layer; empty: none does.
        layer_scale: Vec<bool> = Vec::new(),
        /// Size of the second embedding that every layer has for each token (Gemma 3n and 4); 0 for none.
        per_layer_input: usize = 0,
        /// Scale of the logits (1 = off).
        logit_scale: f32 = 1.0,
        /// Logits become `this · tanh(logit / this)`; 0 leaves them unchanged.
        logit_soft_cap: f32 = 0.0,

        /// Experts in a layer that has a router; 0 for a dense model.
        experts: usize = 0,
        /// Experts that each token uses.
        experts_used: usize = 0,
        /// Width of one expert; 0 means `feed_forward`.
        expert_feed_forward: usize = 0,
        /// Width of the network that all tokens use in addition to the experts; 0 for none.
        shared_feed_forward: usize = 0,
        /// Whether layers with a router have a dense network, too, and each of the two its own norms (Gemma 4).
        experts_beside: bool = false,
        /// Whether the weights of the chosen experts are divided by their sum.
        expert_weights_norm: bool = true,
        /// Scale of the experts' weights; 0 and 1 mean none.
        expert_weights_scale: f32 = 1.0,
        /// Whether weights multiply the input of an expert rather than its output.
        expert_weights_on_input: bool = false,
        /// How scores become weights.
        expert_gating: ExpertGating = ExpertGating::Softmax,
        /// The first layers, in which a table says which experts a token goes through.
        hashed_layers: usize = 0,
        /// Groups of experts, some of which each token uses; 0 and 1 mean no groups.
        expert_groups: usize = 0,
        /// Groups that a token uses.
        expert_groups_used: usize = 0,
        /// How groups are ranked.
        expert_group_score: GroupScore = GroupScore::Best,

        /// Layers that attend to pictures instead of tokens; they have neither `heads` nor `feed_forward`.
        cross_layers: Vec<usize> = Vec::new(),
        /// Query heads of these layers.
        cross_heads: usize = 0,
        /// Their key and value heads.
        cross_kv_heads: usize = 0,
        /// Width of their feed-forward networks.
        cross_feed_forward: usize = 0,

        /// Prefixes of the names of tensors in the file that serve something other than text.
        ignored_tensors: Vec<String> = Vec::new(),
        ..{
            /// The rotation.
            rope: RopeConfig,
        }
    }
}

impl RopeConfig {
    /// The settings of the rotation, with the frequency divisors if the file has them.
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

    /// The settings of the rotation in local layers.
    pub(crate) fn local_settings(&self) -> RopeSettings {
        let base = if self.local_base > 0.0 { self.local_base } else { self.base };
        let size = if self.local_size > 0 { self.local_size } else { self.size };
        RopeSettings { size, base, style: self.style, scaling: RopeScaling::None, factors: None }
    }
}

#[cfg(test)]
pub(crate) mod tests;
