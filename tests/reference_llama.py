"""The forward pass of the `llama` architecture in NumPy and float64: the oracle of the model tests.

Written for reading next to the papers, not for speed: the whole sequence at once, no cache. It shares no code with the
package; files are read and dequantized by the `gguf` package.

Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971), RoPE https://arxiv.org/abs/2104.09864, grouped queries
https://arxiv.org/abs/2305.13245, YaRN https://arxiv.org/abs/2309.00071, Mixtral https://arxiv.org/abs/2401.04088.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

Array = NDArray[np.float64]


class ReferenceLlama:
    """One model file; call `logits(tokens)`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._reader = gguf.GGUFReader(Path(path))
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._loaded: dict[str, Array | None] = {}
        self.width: int = self.key("embedding_length")
        self.layers: int = self.key("block_count")
        self.epsilon: float = self.key("attention.layer_norm_rms_epsilon")
        self.heads = self._per_layer("attention.head_count")
        self.kv_heads = self._per_layer("attention.head_count_kv", self.heads)
        self.key_size: int = self.key("attention.key_length", self.width // self.heads[0])
        self.value_size: int = self.key("attention.value_length", self.width // self.heads[0])
        self.score_scale: float = self.key("attention.scale", 0.0) or self.key_size**-0.5

    def key(self, name: str, default: Any = None) -> Any:
        """The value of `llama.NAME`."""
        field = self._reader.fields.get(f"llama.{name}")
        return default if field is None else field.contents()

    def weight(self, name: str) -> Array | None:
        """The tensor as float64 in NumPy's order (rows first), or None if the file has none of this name."""
        if name not in self._loaded:
            tensor = self._tensors.get(name)
            self._loaded[name] = None
            if tensor is not None:
                shape = tuple(int(size) for size in reversed(tensor.shape))
                self._loaded[name] = dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(shape)
        return self._loaded[name]

    def logits(self, tokens: list[int] | NDArray[np.integer[Any]]) -> Array:
        """float64[len(tokens), vocabulary]: the logits after every token of one sequence that starts at position 0."""
        output = self.weight("output.weight")
        logits = self.hidden(tokens)[-1] @ (self._matrix("token_embd.weight") if output is None else output).T
        return logits / (self.key("logit_scale", 0.0) or 1.0)

    def hidden(self, tokens: list[int] | NDArray[np.integer[Any]]) -> list[Array]:
        """The residual stream after every layer, and that after the last norm; float64[len(tokens), width] each."""
        states = []
        x = self._matrix("token_embd.weight")[np.asarray(tokens)] * (self.key("embedding_scale", 0.0) or 1.0)
        residual = self.key("residual_scale", 0.0) or 1.0
        for layer in range(self.layers):
            x = x + residual * self._attention(layer, self._norm(x, f"blk.{layer}.attn_norm"))
            x = x + residual * self._feed_forward(layer, self._norm(x, f"blk.{layer}.ffn_norm"))
            states.append(x)
        return [*states, self._norm(x, "output_norm")]

    def _matrix(self, name: str) -> Array:
        weight = self.weight(name)
        assert weight is not None, f"the file lacks {name}"
        return weight

    def _per_layer(self, name: str, default: list[int] | None = None) -> list[int]:
        value = self.key(name, default)
        return list(value) if isinstance(value, list) else [value] * self.layers

    def _norm(self, x: Array, name: str) -> Array:
        mean_square = np.mean(x**2, axis=-1, keepdims=True)
        return x / np.sqrt(mean_square + self.epsilon) * self._matrix(f"{name}.weight")

    def _linear(self, x: Array, name: str) -> Array:
        y = x @ self._matrix(f"{name}.weight").T
        bias = self.weight(f"{name}.bias")
        return y if bias is None else y + bias

    def _attention(self, layer: int, x: Array) -> Array:
        count, heads, shared = len(x), self.heads[layer], self.kv_heads[layer]
        prefix = f"blk.{layer}.attn"
        if self.weight(f"{prefix}_qkv.weight") is None:
            query, key, value = (self._linear(x, f"{prefix}_{part}") for part in "qkv")
        else:
            ends = np.cumsum([heads * self.key_size, shared * self.key_size])
            query, key, value = np.split(self._linear(x, f"{prefix}_qkv"), ends, axis=-1)
        cos, sin = rotation(self, np.arange(count))
        query = rotate(query.reshape(count, heads, self.key_size), cos, sin)
        key = rotate(key.reshape(count, shared, self.key_size), cos, sin)
        value = value.reshape(count, shared, self.value_size)
        visible = np.tri(count, dtype=bool)
        attended = np.empty((count, heads, self.value_size))
        for head in range(heads):
            group = head * shared // heads
            scores = query[:, head] @ key[:, group].T * self.score_scale
            attended[:, head] = softmax(np.where(visible, scores, -np.inf)) @ value[:, group]
        return self._linear(attended.reshape(count, -1), f"{prefix}_output")

    def _feed_forward(self, layer: int, x: Array) -> Array:
        prefix = f"blk.{layer}.ffn"
        if self.weight(f"{prefix}_gate_inp.weight") is None:
            gated = silu(self._linear(x, f"{prefix}_gate")) * self._linear(x, f"{prefix}_up")
            return self._linear(gated, f"{prefix}_down")
        scores = self._linear(x, f"{prefix}_gate_inp")
        out = np.zeros_like(x)
        for token in range(len(x)):
            for expert, share in self._route(scores[token]):
                gate, up, down = self._expert(prefix, expert)
                out[token] += share * (down @ (silu(gate @ x[token]) * (up @ x[token])))
        return out

    def _route(self, scores: Array) -> list[tuple[int, float]]:
        """The experts of one token with their weights, best first; the lowest index wins a tie."""
        used, gating = self.key("expert_used_count"), self.key("expert_gating_func", 1)
        weights = 1 / (1 + np.exp(-scores)) if gating == 2 else softmax(scores) if gating == 1 else scores
        chosen = np.argsort(-weights, kind="stable")[:used]
        shares = softmax(scores[chosen]) if gating == 3 else weights[chosen]
        if self.key("expert_weights_norm", True):
            shares = shares / max(shares.sum(), 2.0**-14)
        shares = shares * (self.key("expert_weights_scale", 0.0) or 1.0)
        return [(int(expert), float(share)) for expert, share in zip(chosen, shares, strict=True)]

    def _expert(self, prefix: str, expert: int) -> tuple[Array, Array, Array]:
        if self.weight(f"{prefix}_gate.{expert}.weight") is not None:  # files from 2023: one tensor an expert
            return tuple(self._matrix(f"{prefix}_{part}.{expert}.weight") for part in ("gate", "up", "down"))  # type: ignore[return-value]
        down = self._matrix(f"{prefix}_down_exps.weight")[expert]
        fused = self.weight(f"{prefix}_gate_up_exps.weight")
        if fused is not None:
            gate, up = np.split(fused[expert], 2)
            return gate, up, down
        return (
            self._matrix(f"{prefix}_gate_exps.weight")[expert],
            self._matrix(f"{prefix}_up_exps.weight")[expert],
            down,
        )


def silu(x: Array) -> Array:
    """x times the logistic function of x."""
    return x / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def rotation(model: ReferenceLlama, positions: NDArray[np.integer[Any]]) -> tuple[Array, Array]:
    """Cosine and sine of every pair of a head at every position: float64[positions, pairs] each, magnitude included."""
    size = model.key("rope.dimension_count", model.key_size)
    base = model.key("rope.freq_base", 10000.0)
    pairs = np.arange(size // 2)
    frequency = base ** (-2.0 * pairs / size)
    divisors = model.weight("rope_freqs.weight")
    if divisors is not None:
        frequency = frequency / divisors
    factor = model.key("rope.scaling.factor", model.key("rope.scale_linear", 1.0)) or 1.0
    kind = model.key("rope.scaling.type", "linear")
    magnitude = 1.0
    if kind == "linear":
        frequency = frequency / factor
    elif kind == "yarn":
        frequency, magnitude = _yarn(model, frequency, base, size, factor)
    angle = positions[:, None] * frequency
    return np.cos(angle) * magnitude, np.sin(angle) * magnitude


def _yarn(model: ReferenceLlama, frequency: Array, base: float, size: int, factor: float) -> tuple[Array, float]:
    """Slow pairs are interpolated by the factor, fast ones left alone, those between blended."""
    original = model.key("rope.scaling.original_context_length", model.key("context_length"))
    fast, slow = model.key("rope.scaling.yarn_beta_fast", 32.0), model.key("rope.scaling.yarn_beta_slow", 1.0)

    def pair_of(turns: float) -> float:
        """The pair that makes this many turns within the original context."""
        return size * np.log(original / (turns * 2 * np.pi)) / (2 * np.log(base))

    first = max(0.0, np.floor(pair_of(fast)))
    last = min(size - 1.0, np.ceil(pair_of(slow)))
    kept = 1 - np.clip((np.arange(size // 2) - first) / max(0.001, last - first), 0, 1)
    extrapolated = model.key("rope.scaling.yarn_ext_factor", 1.0)
    kept *= 1.0 if extrapolated < 0 else extrapolated
    blended = frequency * kept + frequency / factor * (1 - kept)
    attention = model.key("rope.scaling.attn_factor", 1.0) * model.key("rope.scaling.yarn_attn_factor", 1.0)
    if extrapolated == 0:
        return blended, attention
    multiplier = model.key("rope.scaling.yarn_log_multiplier", 0.0)
    return blended, attention * (1 + 0.1 * np.log(factor)) / (1 + 0.1 * multiplier * np.log(factor))


def rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Turns neighbouring elements of x[tokens, heads, size] as pairs; elements beyond the last pair stay."""
    pairs = cos.shape[-1]
    even, odd = x[..., 0 : 2 * pairs : 2], x[..., 1 : 2 * pairs : 2]
    cos, sin = cos[:, None], sin[:, None]
    turned = x.copy()
    turned[..., 0 : 2 * pairs : 2] = even * cos - odd * sin
    turned[..., 1 : 2 * pairs : 2] = even * sin + odd * cos
    return turned
