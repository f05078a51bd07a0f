"""What the forward pass needs to know of a model besides its weights: sizes and switches, one field each.

The native model takes the fields by these names. Every architecture is one `Config`; where a field has a default, that
is the model of the Llama papers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

__all__ = ["Config"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Config(Mapping[str, Any]):
    """The sizes and switches of a model. A mapping too: `config["layers"]` is `config.layers`."""

    architecture: str
    """general.architecture, for messages only"""
    vocab_size: int
    """rows of the embedding and of the output matrix"""
    context_length: int
    """tokens of context that the model was trained for: the default of a session"""
    embedding_length: int
    """width of the residual stream"""
    layers: int
    feed_forward: list[int]
    """width of the feed-forward network (of one expert, where there are experts), per layer"""
    heads: list[int]
    """query heads, per layer"""
    kv_heads: list[int]
    """key and value heads, per layer; each divides the number of query heads"""
    key_size: int
    """elements of a query or key head"""
    value_size: int
    """elements of a value head"""
    rms_epsilon: float
    """added to the mean square in RMS normalization"""

    rope_size: int
    """elements of a head that are rotated; the rest passes through"""
    rope_base: float = 10000.0
    """of the frequencies of the rotation"""
    rope_style: Literal["interleaved", "neox"] = "interleaved"
    """whether neighbours form a pair, or elements half the size apart"""
    rope_scaling: Literal["none", "linear", "yarn"] = "none"
    """of positions beyond the original context"""
    rope_factor: float = 1.0
    rope_original_context: int
    """tokens of context before the scaling"""
    yarn_ext_factor: float = 0.0
    yarn_attn_factor: float = 1.0
    """factor of sine and cosine, besides the 1 + 0.1 ln(rope_factor) of YaRN"""
    yarn_log_multiplier: float = 0.0
    """divides them by 1 + 0.1 * this * ln(rope_factor)"""
    yarn_beta_fast: float = 32.0
    yarn_beta_slow: float = 1.0

    attention_scale: float = 0.0
    """factor of the attention scores; 0 for 1 / sqrt(key_size)"""
    embedding_scale: float = 1.0
    """factor of the token embeddings (Granite)"""
    residual_scale: float = 1.0
    """factor of what attention and feed-forward add to the residual stream (Granite)"""
    logit_scale: float = 1.0
    """factor of the logits"""

    experts: int = 0
    """of a layer; 0 for a dense model"""
    experts_used: int = 0
    """by each token"""
    expert_weights_norm: bool = True
    """whether the weights of the chosen experts are divided by their sum"""
    expert_weights_scale: float = 1.0
    """factor of the experts' weights"""
    expert_gating: Literal["softmax", "sigmoid", "softmax_selected"] = "softmax"
    """how the router's scores become weights: softmax over all, each by itself, or softmax over the chosen ones"""

    def __getitem__(self, name: str) -> Any:
        if name not in _NAMES:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_NAMES)

    def __len__(self) -> int:
        return len(_NAMES)


_NAMES = dict.fromkeys(field.name for field in fields(Config))
