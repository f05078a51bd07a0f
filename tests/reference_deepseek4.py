"""The NumPy reference of DeepSeek V4: streams mixed by hyper-connections, attention to windows and compressed windows.

Sources: DeepSeek-AI 2026 (the report of DeepSeek V4, section 2), hyper-connections constrained to doubly stochastic
matrices https://arxiv.org/abs/2512.24880, and the code of both in transformers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_functions import Array, rotate, silu, softmax
from reference_model import ReferenceModel, Tokens


class ReferenceDeepseek4(ReferenceModel):
    """One model file and its configuration; call `logits(tokens)`."""

    def hidden(self, tokens: Tokens, context: int | None = None) -> list[Array]:
        """The streams after every layer, [tokens, streams * width], and the state after the last norm."""
        states = []
        row = self.matrix("token_embd.weight")[np.asarray(tokens)]
        x = np.repeat(row[:, None], self.setting("streams"), axis=1)
        for layer in range(self.setting("layers")):
            for part, norm in (("attn", "attn_norm"), ("ffn", "ffn_norm")):
                entering, leaving, mixing = self._connections(f"blk.{layer}.hc_{part}", x)
                inner = self.norm(np.einsum("ts,tsw->tw", entering, x), f"blk.{layer}.{norm}")
                branch = self._attended(layer, inner) if part == "attn" else self._fed(layer, inner, tokens)
                x = leaving[:, :, None] * branch[:, None] + np.einsum("tjk,tjw->tkw", mixing, x)
            states.append(x.reshape(len(x), -1))
        entering = self._gates("output_hc", x, 0, 0, len(x[0]))
        return [*states, self.norm(np.einsum("ts,tsw->tw", entering, x), "output_norm")]

    def _gates(self, prefix: str, x: Array, part: int, first: int, count: int) -> Array:
        """Logistic functions of `count` projections of all streams of x[tokens, streams, width]."""
        return 1 / (1 + np.exp(-self._scores(prefix, x, part, first, count))) + self.setting("stream_epsilon")

    def _scores(self, prefix: str, x: Array, part: int, first: int, count: int) -> Array:
        flat = self.norm(x.reshape(len(x), -1), None)
        rows = slice(first, first + count)
        scores = flat @ self.matrix(f"{prefix}_fn.weight")[rows].T * self.matrix(f"{prefix}_scale.weight")[part]
        return scores + self.matrix(f"{prefix}_base.weight")[rows]

    def _connections(self, prefix: str, x: Array) -> tuple[Array, Array, Array]:
        """Weights with which x[tokens, streams, width] enters a block, with which its output is added, and its mix."""
        count, tiny = x.shape[1], self.setting("stream_epsilon")
        entering = self._gates(prefix, x, 0, 0, count)
        leaving = 2 * (self._gates(prefix, x, 1, count, count) - tiny)
        mixing = softmax(self._scores(prefix, x, 2, 2 * count, count**2).reshape(-1, count, count)) + tiny
        mixing = mixing / (mixing.sum(axis=1, keepdims=True) + tiny)
        for _ in range(self.setting("stream_iterations") - 1):
            mixing = mixing / (mixing.sum(axis=2, keepdims=True) + tiny)
            mixing = mixing / (mixing.sum(axis=1, keepdims=True) + tiny)
        return entering, leaving, mixing

    def _turned(self, layer: int, x: Array, positions: NDArray[np.integer[Any]], *, back: bool = False) -> Array:
        """x[tokens, heads, size], the last elements of each head rotated (back) by the layer's rotation."""
        cos, sin = self.rotation(layer, positions, self.setting("context_length"))
        still = x.shape[-1] - self.setting("rope_size")
        return np.concatenate([x[..., :still], rotate(x[..., still:], cos, -sin if back else sin, "interleaved")], -1)

    def _attended(self, layer: int, x: Array) -> Array:
        """What attention gives for x[tokens, width]."""
        prefix, positions = f"blk.{layer}.attn", np.arange(len(x))
        heads, size = self.setting("heads", layer=layer), self.setting("key_size")
        latent = self.norm(self.linear(x, f"{prefix}_q_a"), f"{prefix}_q_a_norm")
        query = self.norm(self.linear(latent, f"{prefix}_q_b").reshape(len(x), heads, size), None)
        query = self._turned(layer, query, positions)
        key = self.norm(self.linear(x, f"{prefix}_kv"), f"{prefix}_kv_a_norm")[:, None]
        key = self._turned(layer, key, positions)[:, 0]
        distance = positions[:, None] - positions[None, :]
        seen = (distance >= 0) & (distance < self.setting("window", layer=layer))
        ratio = self.setting("compression", layer=layer)
        if ratio:
            far = self._compressed(layer, x, prefix + "_compressor", size)
            chosen = (np.arange(len(far)) + 1) * ratio <= positions[:, None] + 1
            if self.setting("indexer", False, layer):
                chosen = chosen & self._best(layer, x, latent, chosen)
            key, seen = np.concatenate([key, far]), np.concatenate([seen, chosen], axis=1)
        sinks = self.matrix(f"{prefix}_sinks.weight")
        scores = np.einsum("thk,sk->ths", query, key) * size**-0.5
        scores = np.where(seen[:, None], scores, -np.inf)
        sinks = np.broadcast_to(sinks[None, :, None], (len(x), heads, 1))
        shares = softmax(np.concatenate([scores, sinks], axis=-1))[..., :-1]
        attended = self._turned(layer, shares @ key, positions, back=True)
        groups = self.setting("output_groups")
        first = self.matrix(f"{prefix}_output_a.weight").reshape(groups, -1, heads * size // groups)
        between = np.einsum("tgi,goi->tgo", attended.reshape(len(x), groups, -1), first)
        return self.linear(between.reshape(len(x), -1), f"{prefix}_output_b")

    def _compressed(self, layer: int, x: Array, prefix: str, size: int) -> Array:
        """One vector for each whole window of the tokens, [windows, size]; x: [tokens, width]."""
        ratio, overlap = self.setting("compression", layer=layer), self.setting("indexer", False, layer)
        count = len(x) // ratio
        parts = 2 if overlap else 1
        value, score = (
            self.linear(x[: count * ratio], f"{prefix}_{part}").reshape(count, ratio, parts, size)
            for part in ("kv", "gate")
        )
        score = score + self.matrix(f"{prefix}_ape.weight").reshape(ratio, parts, size)
        if overlap:
            # The first half of a window's projections counts for the window behind it.
            value, score = (
                np.concatenate([np.concatenate([np.full_like(a[:1, :, 0], start), a[:-1, :, 0]]), a[:, :, 1]], axis=1)
                for a, start in ((value, 0.0), (score, -np.inf))
            )
        else:
            value, score = value[:, :, 0], score[:, :, 0]
        weight = softmax(score.swapaxes(1, 2)).swapaxes(1, 2)
        made = self.norm((value * weight).sum(axis=1), f"{prefix}_norm")
        return self._turned(layer, made[:, None], np.arange(count) * ratio)[:, 0]

    def _best(self, layer: int, x: Array, latent: Array, seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which compressed windows (columns) the indexer chooses for a token (row), of those that it may see."""
        prefix, heads, size = f"blk.{layer}.indexer", self.setting("indexer_heads"), self.setting("indexer_size")
        key = self._compressed(layer, x, prefix + "_compressor", size)
        query = self.linear(latent, f"{prefix}.attn_q_b").reshape(len(x), heads, size)
        query = self._turned(layer, query, np.arange(len(x)))
        factors = self.linear(x, f"{prefix}.proj") / (heads * size) ** 0.5
        scores = np.einsum("thw,th->tw", np.maximum(np.einsum("thk,wk->thw", query, key), 0), factors)
        top, chosen = self.setting("indexer_top"), np.zeros_like(seen)
        for token in range(len(x)):
            own = scores[token, seen[token]]
            order = np.argsort(-own, kind="stable")
            chosen[token, order[:top]] = True
            if len(own) > top:
                self.margin = min(self.margin, (own[order[top - 1]] - own[order[top]]) / np.abs(own).max())
        return chosen

    def _fed(self, layer: int, x: Array, tokens: Tokens) -> Array:
        """What the experts give for x[tokens, width]."""
        prefix, limit = f"blk.{layer}.ffn", self.setting("activation_limit")
        scores = np.sqrt(np.logaddexp(0, self.linear(x, f"{prefix}_gate_inp")))
        table, bias = self.weight(f"{prefix}_gate_tid2eid.weight"), self.weight(f"blk.{layer}.exp_probs_b.bias")
        shared = (self.matrix(f"{prefix}_{part}_shexp.weight") for part in ("gate", "up", "down"))
        out = self._clamped(x, *shared, limit)
        if table is not None:
            chosen = table[np.asarray(tokens)].astype(int)
        else:
            assert bias is not None
            order, used = np.argsort(-(scores + bias), axis=-1, kind="stable"), self.setting("experts_used")
            ranks = np.take_along_axis(scores + bias, order, axis=-1)
            if used < ranks.shape[1]:
                gaps = (ranks[:, used - 1] - ranks[:, used]) / np.abs(ranks).max(axis=1)
                self.margin = min(self.margin, float(gaps.min()))
            chosen = order[:, :used]
        shares = np.take_along_axis(scores, chosen, axis=-1)
        if self.setting("expert_weights_norm", True):
            shares = shares / (shares.sum(axis=-1, keepdims=True) + 1e-20)
        stacks = [self.matrix(f"{prefix}_{part}_exps.weight") for part in ("gate", "up", "down")]
        for expert in range(scores.shape[1]):
            rows, places = np.nonzero(chosen == expert)
            given = self._clamped(x[rows], *(stack[expert] for stack in stacks), limit)
            np.add.at(out, rows, given * shares[rows, places, None] * self.setting("expert_weights_scale", 1.0))
        return out

    @staticmethod
    def _clamped(x: Array, gate: Array, up: Array, down: Array, limit: float) -> Array:
        """A gated network whose gate is clamped from above and whose other half from both sides."""
        limit = limit or np.inf
        return (silu(np.minimum(x @ gate.T, limit)) * np.clip(x @ up.T, -limit, limit)) @ down.T
