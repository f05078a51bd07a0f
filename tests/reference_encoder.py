"""Encoders in NumPy and float64, written down from the papers and from the tensors of a file: their oracle.

Each architecture is spelled out; nothing here reads the switches that the package makes of metadata. Sources: BERT
(arXiv:1810.04805), Nomic Embed (arXiv:2402.01613, arXiv:2502.07972), RoPE (arXiv:2104.09864), DeBERTa
(arXiv:2006.03654).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from reference_functions import alibi_slopes, gelu, silu, softmax

Array = NDArray[np.float64]


class ReferenceEncoder:
    """One model file; `states(tokens)` are those of every token behind the last layer: float64[tokens, width]."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.reader = gguf.GGUFReader(Path(path))
        self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self.architecture: str = self.reader.fields["general.architecture"].contents()

    def key(self, name: str, default: Any = None) -> Any:
        field = self.reader.fields.get(f"{self.architecture}.{name}")
        return default if field is None else field.contents()

    def has(self, name: str) -> bool:
        return name in self.tensors

    def tensor(self, name: str) -> Array:
        """In NumPy's order: rows first."""
        found = self.tensors[name]
        shape = [int(size) for size in reversed(found.shape)]
        return dequantize(found.data, found.tensor_type).astype(np.float64).reshape(shape)

    def linear(self, x: Array, name: str) -> Array:
        y = x @ self.tensor(f"{name}.weight").T
        return y + self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else y

    def norm(self, x: Array, name: str) -> Array:
        centred = x - x.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + self.key("attention.layer_norm_epsilon"))
        y = y * self.tensor(f"{name}.weight")
        return y + self.tensor(f"{name}.bias") if self.has(f"{name}.bias") else y

    def states(self, tokens: list[int], first_part: int | None = None) -> Array:
        """`first_part`: tokens of the first of two texts."""
        x = self.tensor("token_embd.weight")[tokens]
        if self.has("token_types.weight"):
            types = self.tensor("token_types.weight")
            second = np.arange(len(tokens)) >= (len(tokens) if first_part is None else first_part)
            x = x + types[np.minimum(second, len(types) - 1)]
        if self.architecture == "bert":
            x = x + self.tensor("position_embd.weight")[: len(tokens)]
        x = self.norm(x, "token_embd_norm")
        for layer in range(self.key("block_count")):
            block = f"blk.{layer}"
            start = x
            x = self.norm(x + self.attention(x, block), f"{block}.attn_output_norm")
            if self.has(f"{block}.attn_norm_2.weight"):
                x = self.norm(x + start, f"{block}.attn_norm_2")
            x = self.norm(x + self.feed_forward(x, block), f"{block}.layer_output_norm")
        return x

    def attention(self, x: Array, block: str) -> Array:
        heads = self.key("attention.head_count")
        if self.has(f"{block}.attn_qkv.weight"):
            parts = np.split(self.linear(x, f"{block}.attn_qkv"), 3, axis=-1)
        else:
            parts = [self.linear(x, f"{block}.attn_{part}") for part in "qkv"]
        if self.has(f"{block}.attn_q_norm.weight"):
            parts[:2] = [self.norm(parts[index], f"{block}.attn_{part}_norm") for index, part in enumerate("qk")]
        query, key, value = (part.reshape(len(x), heads, -1).transpose(1, 0, 2) for part in parts)
        if self.architecture.startswith("nomic") or self.architecture == "jina-bert-v3":
            query, key = self.rotated(query), self.rotated(key)
        if self.architecture == "deberta-v2":
            scores = self.disentangled(query, key, block)
        else:
            scores = query @ key.transpose(0, 2, 1) / np.sqrt(query.shape[-1])
        if self.architecture == "jina-bert-v2":
            places = np.arange(len(x))
            scores = scores - alibi_slopes(heads, 8.0)[:, None, None] * np.abs(places[:, None] - places)
        mixed = softmax(scores) @ value
        return self.linear(mixed.transpose(1, 0, 2).reshape(len(x), -1), f"{block}.attn_output")

    def disentangled(self, query: Array, key: Array, block: str) -> Array:
        """Formula 4 of the paper: content to content, content to position and position to content."""
        table = self.norm(self.tensor("rel_embd.weight"), "rel_embd_norm")
        heads, tokens, size = query.shape
        far_key, far_query = (
            self.linear(table, f"{block}.attn_{part}").reshape(len(table), heads, size).transpose(1, 0, 2)
            for part in "kq"
        )
        scores = query @ key.transpose(0, 2, 1)
        for i in range(tokens):
            for j in range(tokens):
                row = self.distance_row(i - j)
                scores[:, i, j] += (query[:, i] * far_key[:, row]).sum(-1) + (key[:, j] * far_query[:, row]).sum(-1)
        return scores / np.sqrt(3 * size)

    def distance_row(self, difference: int) -> int:
        buckets, most = self.key("attention.relative_buckets_count"), self.key("attention.relative_positions_max")
        span, middle, distance = buckets or most, buckets // 2, abs(difference)
        bucket = distance
        if buckets and distance > middle:
            share = np.log(distance / middle) / np.log((most - 1) / middle)
            bucket = int(np.ceil(share * (middle - 1))) + middle
        return int(np.clip(np.sign(difference) * bucket + span, 0, 2 * span - 1))

    def classes(self, state: Array) -> Array:
        """The scores of a state by the two matrices of the classifier."""
        inner = self.linear(state, "cls")
        return self.linear(gelu(inner) if self.architecture == "deberta-v2" else np.tanh(inner), "cls.output")

    def rotated(self, x: Array) -> Array:
        """x[heads, tokens, size]: element i turns with element i + size / 2."""
        half = x.shape[-1] // 2
        angle = np.outer(np.arange(x.shape[1]), float(self.key("rope.freq_base")) ** (-np.arange(half) / half))
        first, second = x[..., :half], x[..., half:]
        turned = [first * np.cos(angle) - second * np.sin(angle), first * np.sin(angle) + second * np.cos(angle)]
        return np.concatenate(turned, axis=-1)

    def feed_forward(self, x: Array, block: str) -> Array:
        if self.has(f"{block}.ffn_gate_inp.weight"):
            return self.experts(x, block)
        up, function = self.linear(x, f"{block}.ffn_up"), gelu if self.architecture == "jina-bert-v2" else silu
        if self.has(f"{block}.ffn_gate.weight"):
            return self.linear(up * function(self.linear(x, f"{block}.ffn_gate")), f"{block}.ffn_down")
        if up.shape[-1] == 2 * self.key("feed_forward_length"):
            gate, up = np.split(up, 2, axis=-1)
            return self.linear(up * function(gate), f"{block}.ffn_down")
        return self.linear(gelu(up), f"{block}.ffn_down")

    def experts(self, x: Array, block: str) -> Array:
        """The weights of the best experts are those of the softmax over all."""
        shares = softmax(self.linear(x, f"{block}.ffn_gate_inp"))
        ups, downs = self.tensor(f"{block}.ffn_up_exps.weight"), self.tensor(f"{block}.ffn_down_exps.weight")
        output = np.zeros_like(x)
        for row, weights in enumerate(shares):
            for expert in np.argsort(-weights, kind="stable")[: self.key("expert_used_count")]:
                output[row] += weights[expert] * (downs[expert] @ gelu(ups[expert] @ x[row]))
        return output
