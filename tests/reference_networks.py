"""The feed-forward networks and experts of the NumPy reference."""

from __future__ import annotations

import numpy as np

from reference_functions import ACTIVATIONS, Array, near_share, softmax
from reference_weights import ReferenceWeights


class ReferenceNetworks(ReferenceWeights):
    """What follows attention in a layer."""

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
            out += self.shared(prefix, x)
        return out

    def is_beside(self, layer: int) -> bool:
        """Whether a layer has a dense network beside its experts."""
        routed = self.setting("experts") and self.weight(f"blk.{layer}.ffn_gate_inp.weight") is not None
        return bool(self.setting("experts_beside", False) and routed)

    def beside(self, layer: int, x: Array, inner: Array) -> Array:
        """What a dense network, which sees `inner`, and the experts, which see x[tokens, width], give together."""
        prefix = f"blk.{layer}.ffn"
        dense = self.network(inner, *(f"{prefix}_{part}" for part in ("gate", "up", "down")))
        seen = x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + self.setting("norm_epsilon"))
        scores = seen * self.matrix(f"{prefix}_gate_inp.scale") * x.shape[1] ** -0.5
        scores = self.linear(scores, f"{prefix}_gate_inp")
        inner = self.norm(x, f"blk.{layer}.pre_ffw_norm_2")
        bias, scales = self.weight(f"blk.{layer}.exp_probs_b.bias"), self.weight(f"{prefix}_down_exps.scale")
        out = np.zeros_like(x)
        for token in range(len(x)):
            for expert, share in self.route(scores[token], bias):
                share = share if scales is None else share * scales[expert]
                on_input = self.setting("expert_weights_on_input", False)
                row = self.expert(prefix, expert, inner[token] * share if on_input else inner[token])
                out[token] += row if on_input else share * row
        if self.setting("shared_feed_forward"):
            out += self.shared(prefix, inner)
        return self.norm(dense, f"blk.{layer}.post_ffw_norm_1") + self.norm(out, f"blk.{layer}.post_ffw_norm_2")

    def shared(self, prefix: str, x: Array) -> Array:
        """What the network of all tokens gives for x[tokens, width]."""
        shared = self.network(x, *(f"{prefix}_{part}_shexp" for part in ("gate", "up", "down")))
        gate = self.weight(f"{prefix}_gate_inp_shexp.weight")
        return shared if gate is None else shared / (1 + np.exp(-(x @ gate.reshape(-1, 1))))

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
