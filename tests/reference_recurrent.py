"""Recurrent layers of the NumPy reference: gated delta networks, https://arxiv.org/abs/2412.06464."""

from __future__ import annotations

import numpy as np

from reference_functions import Array, silu
from reference_networks import ReferenceNetworks


class ReferenceRecurrent(ReferenceNetworks):
    """What takes the place of attention in a recurrent layer."""

    def recurrent(self, layer: int, x: Array) -> Array:
        """What the layer gives for x[tokens, width], one token after the other."""
        prefix = f"blk.{layer}"
        heads, key_heads = self.setting("recurrent_heads", layer=layer), self.setting("recurrent_key_heads")
        key_size, value_size = self.setting("recurrent_key_size"), self.setting("recurrent_value_size")
        group = heads // key_heads
        channels, gate = self._inputs(prefix, x, key_heads, group, key_size, value_size)
        if self.weight(f"{prefix}.ssm_ba.weight") is None:
            write, time = (self.linear(x, f"{prefix}.ssm_{part}") for part in ("beta", "alpha"))
        else:
            both = self.linear(x, f"{prefix}.ssm_ba").reshape(len(x), key_heads, 2, group)
            write, time = (both[:, :, part].reshape(len(x), heads) for part in (0, 1))
        decay = np.exp(self.matrix(f"{prefix}.ssm_a") * np.logaddexp(0, time + self.matrix(f"{prefix}.ssm_dt.bias")))
        write = 1 / (1 + np.exp(-write))

        taps = self.setting("convolution_size")
        weights = self.matrix(f"{prefix}.ssm_conv1d.weight").reshape(-1, taps)
        padded = np.concatenate([np.zeros((taps - 1, channels.shape[1])), channels])
        mixed = silu(sum(padded[tap : tap + len(x)] * weights[:, tap] for tap in range(taps)))
        query, key, value = np.split(mixed, [key_heads * key_size, 2 * key_heads * key_size], axis=1)
        query, key = (part.reshape(len(x), key_heads, key_size) for part in (query, key))
        query, key = (part / np.sqrt((part**2).sum(axis=-1, keepdims=True) + 1e-6) for part in (query, key))
        value = value.reshape(len(x), heads, value_size)
        order = np.arange(heads)
        order = order // group if self.setting("recurrent_head_order", "grouped") == "grouped" else order % key_heads
        query, key = query[:, order] / np.sqrt(key_size), key[:, order]

        state = np.zeros((heads, key_size, value_size))
        read = np.empty_like(value)
        for token in range(len(x)):
            state *= decay[token][:, None, None]
            known = np.einsum("hkv,hk->hv", state, key[token])
            state += np.einsum("hk,hv->hkv", key[token], write[token][:, None] * (value[token] - known))
            read[token] = np.einsum("hkv,hk->hv", state, query[token])
        square = np.mean(read**2, axis=-1, keepdims=True)
        normed = read / np.sqrt(square + self.setting("norm_epsilon")) * self.matrix(f"{prefix}.ssm_norm.weight")
        return self.linear(normed.reshape(len(x), -1) * silu(gate), f"{prefix}.ssm_out")

    def _inputs(
        self, prefix: str, x: Array, key_heads: int, group: int, key_size: int, value_size: int
    ) -> tuple[Array, Array]:
        """The channels of the convolution (queries, keys, values), and the gate of the output."""
        if self.weight(f"{prefix}.ssm_in.weight") is None:
            return self.linear(x, f"{prefix}.attn_qkv"), self.linear(x, f"{prefix}.attn_gate")
        # Files from 2025: for each key head its query and key, then the values and gates that use it.
        both = self.linear(x, f"{prefix}.ssm_in").reshape(len(x), key_heads, -1)
        parts = np.split(both, np.cumsum([key_size, key_size, group * value_size]), axis=-1)
        query, key, value, gate = (part.reshape(len(x), -1) for part in parts)
        return np.concatenate([query, key, value], axis=1), gate
