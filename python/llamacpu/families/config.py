"""What the forward pass needs to know about a model besides its weights: sizes and switches, one field each.

The native model takes the fields by these names. Every architecture is one `Config`; the defaults are those of the
model in the Llama papers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llamacpu.mappings import FieldMapping

__all__ = ["Config"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Config(FieldMapping):
    """The sizes and switches of a model. It is also a mapping: `config["layers"]` is `config.layers`."""

    architecture: str
    """general.architecture, for messages only"""
    vocab_size: int
    """rows of the output matrix, and of the embedding without the extra rows"""
    extra_embeddings: int = 0
    """rows of the embedding after the vocabulary, which stand for no text (images)"""
    picture_layers: int = 0
    """how many of the first layers are followed by a part of the rows of pictures (Qwen3-VL), which have 1 + this many
    parts of embedding_length"""
    learned_positions: bool = False
    """whether a separate embedding is added for each of the context_length positions"""
    token_types: int = 0
    """rows of the token-type embedding, the first of which is added to every token; 0 for none"""
    embedding_norm: bool = False
    """whether the sum of the embeddings is normalized"""
    embedding_norm_weights: bool = True
    """whether that norm has weights"""
    relative_positions: int = 0
    """farthest distance that has its own bias in attention (DeBERTa); 0 for attention without such biases"""
    relative_buckets: int = 0
    """number of buckets for these distances in each direction; 0 for one per distance"""
    classes: int = 0
    """scores that a classifier gives to a state; 0 for no classifier"""
    classifier_activation: Literal["tanh", "gelu"] = "tanh"
    """the function between the two matrices of the classifier"""
    causal: bool = True
    """whether a token sees only those before it; False for encoders, whose sessions hold one text, read by one step"""
    output_norm: bool = True
    """whether there is a norm after the last layer"""
    output: bool = True
    """whether the last states become logits; False for embedding models"""
    context_length: int
    """tokens of context that the model was trained for; the default of a session"""
    embedding_length: int
    """width of the residual stream"""
    layers: int
    feed_forward: list[int]
    """width of the feed-forward network, per layer; 0 for a layer without one"""
    heads: list[int]
    """query heads, per layer; 0 for a layer without attention"""
    kv_heads: list[int]
    """key and value heads, per layer; a divisor of the query heads, or 0 for a matrix in place of attention"""
    key_size: int
    """elements of a query or key head"""
    value_size: int
    """elements of a value head"""
    key_sizes: list[int] = field(default_factory=list)
    """key_size per layer, where layers differ; empty for the same in all"""
    value_sizes: list[int] = field(default_factory=list)
    """value_size per layer, where layers differ"""
    kv_source: list[int] = field(default_factory=list)
    """the layer whose keys and values a layer reads, per layer: its own number, or that of an earlier one that sees the
    same tokens; empty for their own"""
    keys_as_values: list[bool] = field(default_factory=list)
    """whether the projected keys, before norm and rotation, are the values, too, per layer; empty for no layer"""
    value_norm: bool = False
    """whether each head of the values is normalized, without weights"""
    latent_size: int = 0
    """size of the latent vector from which all keys and values are made (DeepSeek's MLA); 0 for ordinary ones"""
    query_latent_size: int = 0
    """size of the latent vector from which queries are made; 0 for a single matrix"""
    shared_rows: bool = False
    """whether one row of a token, normalized and rotated at its end, is key and value of all heads (DeepSeek V4): heads
    of queries are normalized without weights, and what attention gives is rotated back before it is projected"""
    output_groups: int = 0
    """groups of consecutive heads whose output is projected by a matrix of its own, before all are together; 0 for
    one projection of all heads"""
    output_rank: int = 0
    """elements of the output of a group"""
    compression: list[int] = field(default_factory=list)
    """tokens whose rows become one that later tokens see, too, beyond the window, per layer; 0 or empty for none. In
    layers with an indexer each such row is made of two windows, its own and that before it, and the indexer chooses
    among these rows"""

    indexer: list[bool] = field(default_factory=list)
    """whether a layer chooses the keys that its tokens see (sparse attention), per layer, or sees those that the last
    such layer has chosen; empty for layers that see all keys"""
    indexer_heads: int = 0
    """heads that rank keys"""
    indexer_size: int = 0
    """elements of such a head"""
    indexer_top: int = 0
    """keys that a token sees; with compression, rows made of windows"""
    indexer_rope_style: Literal["interleaved", "neox"] = "interleaved"
    """rope_style of such a head, whose first rope_size elements are rotated"""
    indexer_epsilon: float = 1e-6
    """norm_epsilon of its keys, whose norm is by mean and variance"""

    recurrent_heads: list[int] = field(default_factory=list)
    """value heads of a gated delta network in place of attention, per layer; 0 or empty for none"""
    recurrent_key_heads: int = 0
    """query and key heads of these networks; a divisor of their value heads"""
    recurrent_key_size: int = 0
    """elements of one of their query or key heads"""
    recurrent_value_size: int = 0
    """elements of one of their value heads"""
    recurrent_head_order: Literal["grouped", "interleaved"] = "grouped"
    """whether consecutive value heads use the same key head, or those that are recurrent_key_heads apart"""
    convolution_size: int = 0
    """tokens that the convolution before these networks sees"""

    input: Literal["tokens", "rows", "pairs", "projected_pairs"] = "tokens"
    """what enters the first layer (drafters: families/drafters.py): tokens; rows that a step is given; the second
    halves of rows, where the first layer attends to both halves, each normalized; or a projection of these halves"""
    states_width: int = 0
    """numbers per token of the model's states that a drafter makes rows of; 0 if it takes them as they are"""
    states_norm: Literal["none", "before", "behind"] = "none"
    """whether these are normalized, before the matrix or after it"""
    normed_pairs: bool = False
    """whether the second half of a pair enters the residual stream normalized"""
    row_window: list[int] = field(default_factory=list)
    """how many of the last rows a row sees, itself included, per layer; 0 or empty for all. Unlike those outside of a
    window, keys and values of the others are kept"""
    lent_layers: list[int] = field(default_factory=list)
    """the layer of another model whose keys and values a layer of a drafter reads, per layer; empty for their own"""
    next_width: int = 0
    """numbers of the model's state that a drafter makes of its own final one, for its next row; 0 for none"""

    norm: Literal["rms", "layer"] = "rms"
    """kind of norm: by the root mean square, or by mean and variance (LayerNorm)"""
    norm_epsilon: float
    """added to the mean square or the variance"""
    output_norm_epsilon: float = 0.0
    """the same for the norms on the output of blocks; 0 for norm_epsilon"""
    norms: Literal["before", "behind", "both", "stream"] = "before"
    """whether the input of attention and feed-forward networks is normalized, or the output, or both; or the residual
    stream after each of them"""
    first_attention_norm: bool = True
    """whether the first layer has a norm before attention, as the rest do; that of the embedding may replace it"""
    norm_weights: bool = True
    """whether norms have weights"""
    parallel: bool = False
    """whether the feed-forward network is parallel to attention, with the same norm, instead of after it"""
    parallel_norm: bool = False
    """whether a parallel network has a norm of its own"""
    second_attention_norm: bool = False
    """whether the input of attention is added to the stream, and the stream normalized, a second time"""
    attention_norm: str = "attn_norm"
    """name, in the file, of the norm before attention"""
    feed_forward_norm: str = "ffn_norm"
    """name, in the file, of the norm before the feed-forward network"""
    query_key_norm: list[Literal["none", "head", "each_head", "width", "rotated_head", "unweighted"]] = field(
        default_factory=list
    )
    """norms of queries and keys, per layer: of each head with shared weights or its own, of all heads together, or
    of each head after the rotation, with shared weights or none; empty for no norms"""
    query_key_value_limit: float = 0.0
    """queries, keys and values are clamped to this distance from 0 when they have been projected; 0 leaves them"""
    alibi: float = 0.0
    """linear biases of attention scores (ALiBi): with n heads, a power of two, head i subtracts
    2^(-this * i / n) times the distance; 0 for none"""

    rotation: list[Literal["none", "global", "local"]] = field(default_factory=list)
    """which rotation, per layer; empty for the global one everywhere"""
    rope_size: int
    """elements of a head that are rotated (of a latent key, after the latent part); the rest passes through"""
    rope_base: float = 10000.0
    """base of the rotation's frequencies"""
    rope_local_size: int = 0
    """elements of a head that the local rotation turns; 0 for rope_size"""
    rope_local_base: float = 0.0
    """the same for the local rotation, which is not scaled; 0 for that of the global rotation"""
    rope_style: Literal["interleaved", "neox"] = "interleaved"
    """whether adjacent elements form a pair, or elements half of rope_size apart"""
    rope_sections: list[int] = field(default_factory=list)
    """pairs that are turned by time, row and column of what pictures show; empty: all by the position"""
    rope_sections_alternate: bool = False
    """whether these pairs alternate; else they follow each other"""
    rope_scaling: Literal["none", "linear", "yarn", "longrope"] = "none"
    """scaling of positions beyond the original context; longrope takes divisors of the frequencies from the file, one
    set for sessions up to the original context, another for longer ones"""
    rope_factor: float = 1.0
    rope_original_context: int
    """tokens of context before scaling"""
    yarn_ext_factor: float = 0.0
    yarn_attn_factor: float = 1.0
    """factor of sine and cosine, in addition to YaRN's 1 + 0.1 ln(rope_factor)"""
    yarn_log_multiplier: float = 0.0
    """divides them by 1 + 0.1 * this * ln(rope_factor)"""
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0
    yarn_truncate: bool = True
    """whether the ramp between fast and slow pairs begins and ends at whole pairs"""

    window: list[int] = field(default_factory=list)
    """tokens that each token sees, itself included, per layer; 0 or empty for all before it. With bidirectional
    attention, half of it on each side"""
    chunk: list[int] = field(default_factory=list)
    """size of the chunks beyond which a token sees nothing, per layer; 0 or empty for no chunks"""
    attention_scale: float = 0.0
    """factor of the attention scores; 0 for 1 / sqrt(key_size)"""
    temperature: list[float] = field(default_factory=list)
    """growth of the scores, per layer: queries are multiplied by
    1 + this * ln(1 + floor((position + temperature_offset) / temperature_length))"""
    temperature_length: int = 0
    temperature_offset: int = 0
    attention_soft_cap: float = 0.0
    """scores become this * tanh(score / this); 0 for unchanged scores"""

    attention_gate: Literal["none", "own", "query"] = "none"
    """whether the output of attention is multiplied by the logistic function of a projection of its input: by a matrix
    of its own, or by that of the queries, where each head's gate follows its query"""

    gate: Literal["own", "fused", "none"] = "own"
    """whether feed-forward networks have a gate: a separate matrix, or the first half of the up projection"""
    activation: Literal["silu", "gelu_tanh", "gelu", "tanh", "relu_squared", "clamped_silu", "limited_silu"] = "silu"
    """the activation function of feed-forward networks"""
    activation_limit: float = 0.0
    """limited_silu: the most that enters the function, and the distance from 0 to which its factor is clamped"""

    streams: int = 0
    """residual streams that every block reads and writes with weights of its own (hyper-connections, arXiv:2512.24880);
    0 for a single one"""
    stream_iterations: int = 0
    """how often rows and columns of the matrix that mixes them are normalized in turn (Sinkhorn)"""
    stream_epsilon: float = 0.0
    """added to these weights and sums"""

    embedding_scale: float = 1.0
    """factor of the token embeddings"""
    residual_scale: float = 1.0
    """factor of what attention and feed-forward add to the residual stream"""
    layer_scale: list[bool] = field(default_factory=list)
    """whether a layer multiplies the stream by a factor from the file at its end, per layer; empty for no layer"""
    per_layer_input: int = 0
    """size of the second embedding that every layer has for each token (Gemma 3n and 4); 0 for none"""
    logit_scale: float = 1.0
    """factor of the logits"""
    logit_soft_cap: float = 0.0
    """logits become this * tanh(logit / this); 0 for unchanged logits"""

    experts: int = 0
    """experts of a layer that has a router in the file; 0 for a dense model"""
    experts_used: int = 0
    """experts used by each token"""
    expert_feed_forward: int = 0
    """width of an expert; 0 for the width in feed_forward"""
    shared_feed_forward: int = 0
    """width of the network that all tokens use in addition to the experts; 0 for none"""
    experts_beside: bool = False
    """whether layers with a router have a dense network, too, and each of the two norms of its own (Gemma 4)"""
    expert_weights_norm: bool = True
    """whether the weights of the chosen experts are divided by their sum"""
    expert_weights_scale: float = 1.0
    """factor of the experts' weights"""
    expert_weights_on_input: bool = False
    """whether they multiply the input of an expert instead of its output"""
    hashed_layers: int = 0
    """the first layers, whose experts are those that a table in the file has for the token"""
    expert_gating: Literal["softmax", "sigmoid", "softmax_selected", "sparse_mixer", "sqrt_softplus"] = "softmax"
    """how the router's scores become weights: softmax over all, sigmoid of each, softmax over the chosen ones, for one
    expert after the other softmax over those that are near it and not yet chosen, or the root of softplus of each"""
    expert_groups: int = 0
    """groups of experts, some of which a token uses; 0 for no groups"""
    expert_groups_used: int = 0
    expert_group_score: Literal["best", "two_best"] = "best"
    """how a group is scored: by its best expert, or by its two best together"""

    cross_layers: list[int] = field(default_factory=list)
    """layers that attend to the states of pictures instead of tokens, with neither heads nor feed_forward above"""
    cross_heads: int = 0
    """query heads of these layers"""
    cross_kv_heads: int = 0
    """their key and value heads"""
    cross_feed_forward: int = 0
    """width of their feed-forward networks"""

    ignored_tensors: list[str] = field(default_factory=list)
    """name prefixes of tensors that text does not need; any other tensor that is not read is an error"""
