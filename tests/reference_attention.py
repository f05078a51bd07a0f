"""The attention of the NumPy reference: heads of their own keys and values, and latent vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_functions import Array, alibi_slopes, rotate, soft_cap, softmax, visible
from reference_weights import ReferenceWeights


class ReferenceAttention(ReferenceWeights):
    """The first part of a layer."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.kept: dict[int, tuple[Array, Array]] = {}
        """keys and values of the layers so far, for those that share them"""
        self.chosen: NDArray[np.bool_] = np.ones((1, 1), dtype=bool)
        """the keys (columns) that the last indexer chose for each token (row)"""
        self.margin = np.inf
        """the least difference so far of the scores of the worst chosen key and the best other, by the largest score"""

    def attention(self, layer: int, x: Array, context: int) -> Array:
        """What attention gives for x[tokens, width]."""
        prefix = f"blk.{layer}.attn"
        if not self.setting("kv_heads", layer=layer):
            return self.linear(x, f"{prefix}_output")
        if self.setting("latent_size"):
            query, key, value = self._latent(layer, x, context)
        else:
            query, key, value = self._projected(layer, x, context)
        positions = np.arange(len(x))
        slopes = alibi_slopes(query.shape[1], self.setting("alibi"))
        distance = np.abs(positions[:, None] - positions[None, :])
        growth = self.setting("temperature", 0.0, layer)
        if growth:
            steps = (positions + self.setting("temperature_offset")) // self.setting("temperature_length")
            query = query * (1 + growth * np.log(1 + steps))[:, None, None]
        scale = self.setting("attention_scale") or query.shape[-1] ** -0.5
        window, chunk = self.setting("window", layer=layer), self.setting("chunk", layer=layer)
        seen = visible(len(x), window, chunk, self.setting("causal", True))
        if self.setting("indexer", False, layer):
            self.chosen = self._chosen(layer, x, context)
        if self.setting("indexer"):
            seen = seen & self.chosen
        sinks = self.weight(f"{prefix}_sinks.weight")
        heads, shared = query.shape[1], key.shape[1]
        attended = np.empty((len(x), heads, value.shape[-1]))
        for head in range(heads):
            group = head * shared // heads
            scores = soft_cap(query[:, head] @ key[:, group].T * scale, self.setting("attention_soft_cap"))
            scores = np.where(seen, scores - slopes[head] * distance, -np.inf)
            if sinks is not None:
                scores = np.concatenate([scores, np.full((len(x), 1), sinks[head])], axis=1)
            attended[:, head] = softmax(scores)[:, : len(x)] @ value[:, group]
        attended = attended.reshape(len(x), -1)
        gate = self.setting("attention_gate", "none")
        if gate == "own":
            attended = attended / (1 + np.exp(-self.linear(x, f"{prefix}_gate")))
        elif gate == "query":
            opened = self.linear(x, f"{prefix}_q").reshape(len(x), heads, -1)[..., query.shape[-1] :]
            attended = attended / (1 + np.exp(-opened.reshape(len(x), -1)))
        return self.linear(attended, f"{prefix}_output")

    def _projected(self, layer: int, x: Array, context: int) -> tuple[Array, Array, Array]:
        """Queries, keys and values with matrices of their own: [tokens, heads, size] each."""
        prefix, size = f"blk.{layer}.attn", self.setting("key_sizes", self.setting("key_size"), layer)
        heads, shared = self.setting("heads", layer=layer), self.setting("kv_heads", layer=layer)
        source, limit = self.setting("kv_source", layer, layer), self.setting("query_key_value_limit") or np.inf
        if source != layer:
            query = np.clip(self._queries(layer, x, heads, size), -limit, limit)
            return self._turned(layer, query.reshape(len(x), heads, size), "q", context), *self.kept[source]
        if self.weight(f"{prefix}_qkv.weight") is None:
            query, key = self._queries(layer, x, heads, size), self.linear(x, f"{prefix}_k")
            value = key if self.setting("keys_as_values", False, layer) else self.linear(x, f"{prefix}_v")
        else:
            query, key, value = np.split(self.linear(x, f"{prefix}_qkv"), np.cumsum([heads * size, shared * size]), -1)
        query, key, value = (np.clip(part, -limit, limit) for part in (query, key, value))
        value = value.reshape(len(x), shared, -1)
        if self.setting("value_norm", False):
            value = self.norm(value, None)
        self.kept[layer] = self._turned(layer, key.reshape(len(x), shared, size), "k", context), value
        return self._turned(layer, query.reshape(len(x), heads, size), "q", context), *self.kept[layer]

    def _queries(self, layer: int, x: Array, heads: int, size: int) -> Array:
        """Queries of matrices of their own, without the gates that may follow those of each head."""
        query = self.linear(x, f"blk.{layer}.attn_q")
        if self.setting("attention_gate", "none") == "query":
            query = query.reshape(len(x), heads, -1)[..., :size].reshape(len(x), -1)
        return query

    def _turned(self, layer: int, split: Array, part: str, context: int) -> Array:
        """Queries or keys, [tokens, heads, size], normalized and rotated."""
        kind, name = self.setting("query_key_norm", "none", layer), f"blk.{layer}.attn_{part}_norm"
        if kind == "width":
            split = self.norm(split.reshape(len(split), -1), name).reshape(split.shape)
        elif kind == "head":
            split = self.norm(split, name)
        elif kind == "each_head":
            split = self.norm(split, None, self.matrix(f"{name}.weight").reshape(split.shape[1:]))
        cos, sin = self.rotation(layer, np.arange(len(split)), context)
        split = rotate(split, cos, sin, self.setting("rope_style", "interleaved"))
        if kind in ("unweighted", "rotated_head"):
            split = self.norm(split, None if kind == "unweighted" else name)
        return split

    def _chosen(self, layer: int, x: Array, context: int) -> NDArray[np.bool_]:
        """Whether a token (row) sees a key (column), of which an indexer chooses the best (DeepSeek V3.2)."""
        prefix, count = f"blk.{layer}.indexer", self.setting("indexer_heads")
        latent = self.norm(self.linear(x, f"blk.{layer}.attn_q_a"), f"blk.{layer}.attn_q_a_norm")
        query = self.linear(latent, f"{prefix}.attn_q_b").reshape(len(x), count, -1)
        key = self.linear(x, f"{prefix}.attn_k")
        key = key - key.mean(axis=-1, keepdims=True)
        key = key / np.sqrt((key**2).mean(axis=-1, keepdims=True) + self.setting("indexer_epsilon", 1e-6))
        bias = self.weight(f"{prefix}.k_norm.bias")
        key = key * self.matrix(f"{prefix}.k_norm.weight") + (0 if bias is None else bias)
        cos, sin = self.rotation(layer, np.arange(len(x)), context)
        style = self.setting("indexer_rope_style", "interleaved")
        query, key = rotate(query, cos, sin, style), rotate(key[:, None], cos, sin, style)[:, 0]
        factors = self.linear(x, f"{prefix}.proj") / query[0].size ** 0.5
        scores = np.einsum("thk,th->tk", np.maximum(query @ key.T, 0), factors)
        chosen = np.zeros((len(x), len(x)), dtype=bool)
        for token in range(len(x)):
            own, top = scores[token, : token + 1], self.setting("indexer_top")
            order = np.argsort(-own, kind="stable")
            chosen[token, order[:top]] = True
            if token >= top and own[order[top - 1]] != own[order[top]]:
                gap = own[order[top - 1]] - own[order[top]]
                self.margin = min(self.margin, gap / np.abs(own).max())
        return chosen

    def _latent(self, layer: int, x: Array, context: int) -> tuple[Array, Array, Array]:
        """Queries, keys and values of latent vectors, as the paper defines them: not absorbed."""
        prefix, style = f"blk.{layer}.attn", self.setting("rope_style", "interleaved")
        heads, latent = self.setting("heads", layer=layer), self.setting("latent_size")
        still = self.setting("key_size") - self.setting("rope_size")
        if self.setting("query_latent_size"):
            query = self.linear(self.norm(self.linear(x, f"{prefix}_q_a"), f"{prefix}_q_a_norm"), f"{prefix}_q_b")
        else:
            query = self.linear(x, f"{prefix}_q")
        query = query.reshape(len(x), heads, -1)
        both = self.linear(x, f"{prefix}_kv_a_mqa")
        vectors, turned = self.norm(both[:, :latent], f"{prefix}_kv_a_norm"), both[:, None, latent:]
        cos, sin = self.rotation(layer, np.arange(len(x)), context)
        query = np.concatenate([query[..., :still], rotate(query[..., still:], cos, sin, style)], -1)
        turned = np.broadcast_to(rotate(turned, cos, sin, style), (len(x), heads, turned.shape[-1]))
        key = np.einsum("tl,hls->ths", vectors, self.matrix(f"{prefix}_k_b.weight").reshape(heads, latent, still))
        value = np.einsum("tl,hvl->thv", vectors, self.matrix(f"{prefix}_v_b.weight").reshape(heads, -1, latent))
        return query, np.concatenate([key, turned], -1), value
