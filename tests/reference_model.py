"""The forward pass in NumPy and float64, by the switches of a configuration: the oracle of the model tests.

Written for reading next to the papers, not for speed: the whole sequence at once, no cache. It shares no code with the
package; files are read and dequantized by the `gguf` package. A configuration is a mapping with the names of
`llamacpu.families.config.Config`, whose docstrings say what the switches mean; what it lacks is as in Llama.

Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971), RoPE https://arxiv.org/abs/2104.09864, grouped queries
https://arxiv.org/abs/2305.13245, YaRN https://arxiv.org/abs/2309.00071, Mixtral https://arxiv.org/abs/2401.04088,
latent attention https://arxiv.org/abs/2405.04434, and those named in families/.
"""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

Array = NDArray[np.float64]
Tokens = list[int] | NDArray[np.integer[Any]]


class ReferenceModel:
    """One model file and its configuration; call `logits(tokens)`."""

    def __init__(self, path: str | os.PathLike[str], config: Mapping[str, Any]) -> None:
        self.reader = gguf.GGUFReader(Path(path))
        self.config = config
        self._tensors = {tensor.name: tensor for tensor in self.reader.tensors}
        self._loaded: dict[str, Array | None] = {}
        self._disturbance = 0.0

    def setting(self, name: str, default: Any = 0, layer: int | None = None) -> Any:
        """A switch; with a layer, that layer's entry of it."""
        if layer is None:
            return self.config.get(name, default)
        return self.config[name][layer] if self.config.get(name) else default

    def disturb(self, size: float) -> None:
        """Multiplies every weight by a random number of this distance from 1, from now on."""
        self._disturbance = size
        self._loaded.clear()

    def weight(self, name: str) -> Array | None:
        """The tensor as float64 in NumPy's order (rows first), or None if the file has none of this name."""
        if name not in self._loaded:
            tensor = self._tensors.get(name)
            self._loaded[name] = None
            if tensor is not None:
                shape = tuple(int(size) for size in reversed(tensor.shape))
                loaded = dequantize(tensor.data, tensor.tensor_type).astype(np.float64).reshape(shape)
                if self._disturbance:
                    random = np.random.default_rng(zlib.crc32(name.encode()))
                    loaded *= 1 + self._disturbance * random.standard_normal(shape)
                self._loaded[name] = loaded
        return self._loaded[name]

    def matrix(self, name: str) -> Array:
        """A tensor that the file must have."""
        weight = self.weight(name)
        assert weight is not None, f"the file lacks {name}"
        return weight

    def logits(self, tokens: Tokens, context: int | None = None) -> Array:
        """float64[len(tokens), vocabulary]: the logits after every token of one sequence that starts at position 0.

        `context` is that of the session, on which some rotations depend.
        """
        logits = self.output(self.hidden(tokens, context)[-1]) * self.setting("logit_scale", 1.0)
        return soft_cap(logits, self.setting("logit_soft_cap"))

    def output(self, x: Array) -> Array:
        """The output matrix, or that of the embedding, of x[tokens, width]."""
        if self.weight("output.weight") is not None:
            return self.linear(x, "output")
        bias = self.weight("output.bias")
        logits = x @ self.matrix("token_embd.weight").T
        return logits if bias is None else logits + bias

    def hidden(self, tokens: Tokens, context: int | None = None) -> list[Array]:
        """The residual stream after every layer, and that after the last norm; float64[len(tokens), width] each."""
        states = []
        x = self.matrix("token_embd.weight")[np.asarray(tokens)] * self.setting("embedding_scale", 1.0)
        if self.setting("learned_positions", False):
            x = x + self.matrix("position_embd.weight")[: len(x)]
        if self.setting("embedding_norm", False):
            x = self.norm(x, "token_embd_norm")
        norms, residual = self.setting("norms", "before"), self.setting("residual_scale", 1.0)
        context = context or self.setting("context_length")
        for layer in range(self.setting("layers")):
            start = x
            if self.setting("heads", layer=layer):
                plain = norms == "behind" or (layer == 0 and not self.setting("first_attention_norm", True))
                inner = x if plain else self.norm(x, f"blk.{layer}.{self.setting('attention_norm', 'attn_norm')}")
                branch = self.attention(layer, inner, context)
                if norms != "before":
                    branch = self.norm(branch, f"blk.{layer}.post_attention_norm")
                x = x + residual * branch
            if self.setting("feed_forward", layer=layer):
                if self.setting("parallel", False):
                    kind = self.setting("attention_norm", "attn_norm")
                    if self.setting("parallel_norm", False):
                        kind = self.setting("feed_forward_norm", "ffn_norm")
                    inner = self.norm(start, f"blk.{layer}.{kind}")
                elif norms == "behind":
                    inner = x
                else:
                    inner = self.norm(x, f"blk.{layer}.{self.setting('feed_forward_norm', 'ffn_norm')}")
                branch = self.feed_forward(layer, inner)
                if norms != "before":
                    branch = self.norm(branch, f"blk.{layer}.post_ffw_norm")
                x = x + residual * branch
            states.append(x)
        return [*states, self.norm(x, "output_norm")]

    def norm(self, x: Array, name: str | None, weight: Array | None = None) -> Array:
        """Normalizes the last axis, with the weights of that name, with these, or without any."""
        layer = self.setting("norm", "rms") == "layer"
        centred = x - x.mean(axis=-1, keepdims=True) if layer else x
        y = centred / np.sqrt(np.mean(centred**2, axis=-1, keepdims=True) + self.setting("norm_epsilon"))
        if name is None or not self.setting("norm_weights", True):
            return y if weight is None else y * weight
        bias = self.weight(f"{name}.bias") if layer else None
        y = y * self.matrix(f"{name}.weight")
        return y if bias is None else y + bias

    def linear(self, x: Array, name: str) -> Array:
        """A matrix and its bias, if it has one."""
        y = x @ self.matrix(f"{name}.weight").T
        bias = self.weight(f"{name}.bias")
        return y if bias is None else y + bias

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
        scale = self.setting("attention_scale") or self.setting("key_size") ** -0.5
        window, chunk = self.setting("window", layer=layer), self.setting("chunk", layer=layer)
        seen = visible(len(x), window, chunk, self.setting("causal", True))
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
        return self.linear(attended.reshape(len(x), -1), f"{prefix}_output")

    def _projected(self, layer: int, x: Array, context: int) -> tuple[Array, Array, Array]:
        """Queries, keys and values with matrices of their own: [tokens, heads, size] each."""
        prefix, size = f"blk.{layer}.attn", self.setting("key_size")
        heads, shared = self.setting("heads", layer=layer), self.setting("kv_heads", layer=layer)
        if self.weight(f"{prefix}_qkv.weight") is None:
            query, key, value = (self.linear(x, f"{prefix}_{part}") for part in "qkv")
        else:
            query, key, value = np.split(self.linear(x, f"{prefix}_qkv"), np.cumsum([heads * size, shared * size]), -1)
        if self.setting("query_key_value_limit"):
            limit = self.setting("query_key_value_limit")
            query, key, value = (np.clip(part, -limit, limit) for part in (query, key, value))
        kind = self.setting("query_key_norm", "none", layer)
        cos, sin = self.rotation(layer, np.arange(len(x)), context)
        parts = []
        for flat, count, name in ((query, heads, f"{prefix}_q_norm"), (key, shared, f"{prefix}_k_norm")):
            if kind == "width":
                flat = self.norm(flat, name)
            split = flat.reshape(len(x), count, size)
            if kind == "head":
                split = self.norm(split, name)
            elif kind == "each_head":
                split = self.norm(split, None, self.matrix(f"{name}.weight").reshape(count, size))
            split = rotate(split, cos, sin, self.setting("rope_style", "interleaved"))
            if kind in ("unweighted", "rotated_head"):
                split = self.norm(split, None if kind == "unweighted" else name)
            parts.append(split)
        return parts[0], parts[1], value.reshape(len(x), shared, self.setting("value_size"))

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

    def feed_forward(self, layer: int, x: Array) -> Array:
        """What the network or the experts give for x[tokens, width]."""
        prefix = f"blk.{layer}.ffn"
        if not self.setting("experts") or self.weight(f"{prefix}_gate_inp.weight") is None:
            return self.network(x, *(f"{prefix}_{part}" for part in ("gate", "up", "down")))
        scores = self.linear(x, f"{prefix}_gate_inp")
        bias = self.weight(f"blk.{layer}.exp_probs_b.bias")
        on_input = self.setting("expert_weights_on_input", False)
        out = np.zeros_like(x)
        for token in range(len(x)):
            for expert, share in self.route(scores[token], bias):
                row = x[token] * share if on_input else x[token]
                out[token] += (1.0 if on_input else share) * self.expert(prefix, expert, row)
        if self.setting("shared_feed_forward"):
            shared = self.network(x, *(f"{prefix}_{part}_shexp" for part in ("gate", "up", "down")))
            gate = self.weight(f"{prefix}_gate_inp_shexp.weight")
            out += shared if gate is None else shared / (1 + np.exp(-(x @ gate.reshape(-1, 1))))
        return out

    def network(self, x: Array, gate: str, up: str, down: str) -> Array:
        """A feed-forward network of these tensors."""
        kind = self.setting("gate", "own")
        raised = self.linear(x, up)
        if kind == "fused":
            first, raised = np.split(raised, 2, axis=-1)
        elif kind == "own":
            first = self.linear(x, gate)
        return self.linear(self.activate(raised) if kind == "none" else self.activate(first, raised), down)

    def activate(self, x: Array, up: Array | None = None) -> Array:
        """The function of a network without a gate, or of the gate, times `up`."""
        kind = self.setting("activation", "silu")
        if kind == "clamped_silu":
            assert up is not None
            x, up = np.minimum(x, 7.0), np.clip(up, -7.0, 7.0)
            return (up + 1) * x / (1 + np.exp(-1.702 * x))
        y = ACTIVATIONS[kind](x)
        return y if up is None else y * up

    def route(self, scores: Array, bias: Array | None = None) -> list[tuple[int, float]]:
        """The experts of one token with their weights, best first; the lowest index wins a tie."""
        used, gating = self.setting("experts_used"), self.setting("expert_gating", "softmax")
        if gating == "sigmoid":
            weights = 1 / (1 + np.exp(-scores))
        else:
            weights = softmax(scores) if gating == "softmax" else scores
        ranks = weights if bias is None else weights + bias
        groups = self.setting("expert_groups")
        if groups > 1:
            members = ranks.reshape(groups, -1)
            counted = 2 if self.setting("expert_group_score", "best") == "two_best" else 1
            worth = np.sort(members, axis=1)[:, ::-1][:, :counted].sum(axis=1)
            best = np.argsort(-worth, kind="stable")[: self.setting("expert_groups_used")]
            left_out = np.setdiff1d(np.arange(groups), best)
            ranks = ranks.copy()
            ranks.reshape(groups, -1)[left_out] = -np.inf
        chosen = np.argsort(-ranks, kind="stable")[:used]
        shares = softmax(scores[chosen]) if gating == "softmax_selected" else weights[chosen]
        if gating == "sparse_mixer":
            shares = np.array([near_share(scores, chosen[:place], expert) for place, expert in enumerate(chosen)])
        if self.setting("expert_weights_norm", True):
            shares = shares / max(shares.sum(), 2.0**-14)
        shares = shares * (self.setting("expert_weights_scale", 1.0) or 1.0)
        return [(int(expert), float(share)) for expert, share in zip(chosen, shares, strict=True)]

    def expert(self, prefix: str, expert: int, x: Array) -> Array:
        """What one expert gives for x[width]."""
        if self.weight(f"{prefix}_up.{expert}.weight") is not None:  # files from 2023: one tensor an expert
            return self.network(x, *(f"{prefix}_{part}.{expert}" for part in ("gate", "up", "down")))

        def slice_of(part: str, x: Array) -> Array:
            return self.expert_part(x, f"{prefix}_{part}_exps", expert)

        if self.weight(f"{prefix}_gate_up_exps.weight") is not None:
            inner = self.activate(*np.split(slice_of("gate_up", x), 2))
        elif self.setting("gate", "own") == "none":
            inner = self.activate(slice_of("up", x))
        else:
            inner = self.activate(slice_of("gate", x), slice_of("up", x))
        return slice_of("down", inner)

    def expert_part(self, x: Array, name: str, expert: int) -> Array:
        """The matrix of one expert and its bias, if it has one, for x[width]."""
        y = self.matrix(f"{name}.weight")[expert] @ x
        bias = self.weight(f"{name}.bias")
        return y if bias is None else y + bias[expert]

    def rotation(self, layer: int, positions: NDArray[np.integer[Any]], context: int) -> tuple[Array, Array]:
        """Cosine and sine of every pair of a head at every position: float64[positions, pairs], magnitude included."""
        kind = self.setting("rotation", "global", layer)
        size = 0 if kind == "none" else self.setting("rope_size")
        base = self.setting("rope_base", 10000.0)
        if kind == "local":
            base = self.setting("rope_local_base") or base
        frequency = base ** (-2.0 * np.arange(size // 2) / max(size, 1))
        magnitude = 1.0
        if kind == "global":
            frequency, magnitude = self._scaled(frequency, base, size, context)
        angle = positions[:, None] * frequency
        return np.cos(angle) * magnitude, np.sin(angle) * magnitude

    def _scaled(self, frequency: Array, base: float, size: int, context: int) -> tuple[Array, float]:
        """Frequencies and magnitude of the global rotation."""
        kind, factor = self.setting("rope_scaling", "none"), self.setting("rope_factor", 1.0)
        long = context > self.setting("rope_original_context")
        divisors = self.weight("rope_freqs.weight")
        if kind == "longrope" and divisors is None:
            divisors = self.matrix(f"rope_factors_{'long' if long else 'short'}.weight")
        if divisors is not None:
            frequency = frequency / divisors
        if kind == "linear":
            return frequency / factor, 1.0
        if kind == "longrope":
            return frequency, self.setting("yarn_attn_factor", 1.0)
        return self._yarn(frequency, base, size, factor) if kind == "yarn" else (frequency, 1.0)

    def _yarn(self, frequency: Array, base: float, size: int, factor: float) -> tuple[Array, float]:
        """Slow pairs are interpolated by the factor, fast ones left alone, those between blended."""
        original = self.setting("rope_original_context")

        def pair_of(turns: float) -> float:
            """The pair that makes this many turns within the original context."""
            return size * math.log(original / (turns * 2 * np.pi)) / (2 * math.log(base))

        first, last = (
            pair_of(self.setting(f"yarn_beta_{end}", turns)) for end, turns in (("fast", 32.0), ("slow", 1.0))
        )
        if self.setting("yarn_truncate", True):
            first, last = np.floor(first), np.ceil(last)
        first, last = max(0.0, first), min(size - 1.0, last)
        kept = 1 - np.clip((np.arange(size // 2) - first) / max(0.001, last - first), 0, 1)
        extrapolated = self.setting("yarn_ext_factor", 0.0)
        kept *= extrapolated
        blended = frequency * kept + frequency / factor * (1 - kept)
        magnitude = self.setting("yarn_attn_factor", 1.0)
        if extrapolated:
            multiplier = self.setting("yarn_log_multiplier", 0.0)
            magnitude *= (1 + 0.1 * math.log(factor)) / (1 + 0.1 * multiplier * math.log(factor))
        return blended, magnitude


def is_exact(got: NDArray[np.float32], reference: ReferenceModel, tokens: Tokens) -> bool:
    """Whether these logits are those of the reference, as far as 32-bit arithmetic can tell.

    The limit is 1e-9 of the squares of the logits. Some random models cannot be computed so closely: where what two
    layers add nearly cancels, or where a width of two leaves a norm next to nothing to divide by, every rounding grows
    a thousandfold. How much is seen from the reference itself, whose weights are moved by about a rounding each. The
    limit is then a multiple of what that does to the logits: one draw of such disturbances is less than the sum of all
    roundings of a pass by up to a factor of 300.
    """
    exact = reference.logits(tokens)
    squares = float((exact**2).sum())
    error = float(((got - exact) ** 2).sum())
    if error <= 1e-9 * squares:
        return True
    reference.disturb(2.0**-23)
    return error <= 1000 * float(((reference.logits(tokens) - exact) ** 2).sum())


def visible(count: int, window: int, chunk: int, causal: bool = True) -> NDArray[np.bool_]:
    """Whether a token (row) sees another one (column)."""
    query, key = np.arange(count)[:, None], np.arange(count)[None, :]
    if not causal:
        return np.abs(query - key) <= (window // 2 if window else count)
    seen = key <= query
    if window:
        seen &= query - key < window
    if chunk:
        seen &= query // chunk == key // chunk
    return seen


def gelu(x: Array) -> Array:
    """x times the share of the normal distribution below x."""
    return x * np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2)(x)


ACTIVATIONS = {
    "silu": lambda x: silu(x),
    "gelu": gelu,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "tanh": np.tanh,
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


def alibi_slopes(heads: int, largest: float) -> Array:
    """Press et al. 2021 (https://arxiv.org/abs/2108.12409), section 3, and their code for other numbers of heads."""
    if not largest:
        return np.zeros(heads)
    count = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-largest * index / count) for index in range(1, count + 1)]
    return np.array(slopes + [2 ** (-largest * index / (2 * count)) for index in range(1, 2 * count, 2)])[:heads]


def near_share(scores: Array, before: NDArray[np.integer[Any]], expert: int) -> float:
    """The softmax of an expert's score, over those that are within 2 % and not chosen before (arXiv:2409.12136)."""
    best = scores[expert]
    near = (best - scores) / np.maximum(np.abs(scores), best) <= 0.02
    near[before] = False
    return float(1 / np.exp(scores[near] - best).sum())


def soft_cap(x: Array, cap: float) -> Array:
    """x where it is small, never more than the cap."""
    return cap * np.tanh(x / cap) if cap else x


def silu(x: Array) -> Array:
    """x times the logistic function of x."""
    return x / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def rotate(x: Array, cos: Array, sin: Array, style: str) -> Array:
    """Turns pairs of elements of x[tokens, heads, size], neighbours or half the size apart; the others stay."""
    pairs = cos.shape[-1]
    first = slice(0, 2 * pairs, 2) if style == "interleaved" else slice(0, pairs)
    second = slice(1, 2 * pairs, 2) if style == "interleaved" else slice(pairs, 2 * pairs)
    a, b = x[..., first], x[..., second]
    cos, sin = cos[:, None], sin[:, None]
    turned = x.copy()
    turned[..., first] = a * cos - b * sin
    turned[..., second] = a * sin + b * cos
    return turned
