"""The forward pass in NumPy and float64, by the switches of a configuration: the oracle of the model tests.

Written for reading next to the papers, not for speed: the whole sequence at once, no cache. It shares no code with the
package; files are read and dequantized by the `gguf` package. A configuration is a mapping with the names of
`llamacpu.families.config.Config`, whose docstrings say what the switches mean; what it lacks is as in Llama.

Sources: Touvron et al. 2023 (https://arxiv.org/abs/2302.13971), RoPE https://arxiv.org/abs/2104.09864, grouped queries
https://arxiv.org/abs/2305.13245, YaRN https://arxiv.org/abs/2309.00071, Mixtral https://arxiv.org/abs/2401.04088,
latent attention https://arxiv.org/abs/2405.04434, and those named in families/.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_functions import Array, alibi_slopes, rotate, soft_cap, softmax, visible
from reference_networks import ReferenceNetworks

Tokens = list[int] | NDArray[np.integer[Any]]


class ReferenceModel(ReferenceNetworks):
    """One model file and its configuration; call `logits(tokens)`."""

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
            x = self.norm(x, "token_embd_norm" if self.setting("embedding_norm_weights", True) else None)
        norms, residual = self.setting("norms", "before"), self.setting("residual_scale", 1.0)
        context = context or self.setting("context_length")
        epsilon = self.setting("output_norm_epsilon")
        for layer in range(self.setting("layers")):
            start = x
            if self.setting("heads", layer=layer):
                plain = norms == "behind" or (layer == 0 and not self.setting("first_attention_norm", True))
                inner = x if plain else self.norm(x, f"blk.{layer}.{self.setting('attention_norm', 'attn_norm')}")
                branch = self.attention(layer, inner, context)
                if norms != "before":
                    branch = self.norm(branch, f"blk.{layer}.post_attention_norm", epsilon=epsilon)
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
                    branch = self.norm(branch, f"blk.{layer}.post_ffw_norm", epsilon=epsilon)
                x = x + residual * branch
            states.append(x)
        return [*states, self.norm(x, "output_norm")]

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
        attended = attended.reshape(len(x), -1)
        if self.setting("attention_gate", "none") == "own":
            attended = attended / (1 + np.exp(-self.linear(x, f"{prefix}_gate")))
        return self.linear(attended, f"{prefix}_output")

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
