"""Gemma 4's assistant with random weights, and its definition in NumPy and float64."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import further_families
from config_models import tensors
from drafter_files import CONTEXT, VOCABULARY, WIDTH, write_drafter
from llamacpu.families.config import Config
from reference_functions import Array, rotate, softmax
from reference_model import ReferenceModel

WINDOW = further_families.expected("gemma4").window[0]
OWN = 32
LENT = [0, 1, 0]
"""The layers of the model of `further_families` that the three layers read, whose last two layers share theirs."""
ASSISTANT = Config(
    architecture="gemma4-assistant", vocab_size=VOCABULARY, context_length=CONTEXT, embedding_length=OWN, layers=3,
    feed_forward=[40] * 3, heads=[4] * 3, kv_heads=[2, 1, 2], key_size=12, value_size=12, key_sizes=[8, 12, 8],
    value_sizes=[8, 12, 8], norm_epsilon=1e-5, rope_size=12, rope_local_size=8, rope_local_base=100.0,
    rope_original_context=CONTEXT, rope_style="neox", window=[WINDOW, 0, WINDOW], kv_source=[9, 9, 9],
    rotation=["local", "global", "local"], query_key_norm=["head"] * 3, norms="both", activation="gelu_tanh",
    attention_scale=1.0, layer_scale=[True] * 3,
)  # fmt: skip


def write_assistant(
    path: Path,
    *,
    keys: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
    more: dict[str, Any] | None = None,
    tokens: list[str] | None = None,
    width: int = OWN,
    seed: int = 9,
) -> Path:
    """A drafter of three layers for the model "gemma4" of `further_families`."""
    random = np.random.default_rng(seed)
    found = tensors(replace(ASSISTANT, embedding_length=width), random, False, True)
    found["nextn.pre_projection.weight"] = random.standard_normal((width, 2 * WIDTH)) * 0.1
    found["nextn.post_projection.weight"] = random.standard_normal((WIDTH, width)) * 0.2
    found["rope_freqs.weight"] = np.array([1.0] * 2 + [1e30] * 4)
    facts: dict[str, Any] = {
        "block_count": 3, "context_length": CONTEXT, "embedding_length": width, "feed_forward_length": 40,
        "attention.head_count": 4, "attention.head_count_kv": [2, 1, 2], "attention.key_length": 12,
        "attention.value_length": 12, "attention.key_length_swa": 8, "attention.value_length_swa": 8,
        "attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": WINDOW,
        "attention.sliding_window_pattern": [True, False, True], "attention.shared_kv_layers": 3,
        "rope.dimension_count": 12, "rope.dimension_count_swa": 8, "rope.freq_base_swa": 100.0,
        "embedding_length_per_layer_input": 0, "final_logit_softcapping": 6.0, "embedding_length_out": WIDTH,
        "nextn_predict_layers": 3,
    }  # fmt: skip
    found |= more or {}
    for name in drop:
        del found[name]
    return write_drafter(path, "gemma4-assistant", facts | (keys or {}), found, tokens=tokens)


class ReferenceAssistant(ReferenceModel):
    """The drafter behind a text, of which it sees the keys and values of layers of the model.

    kept: keys and values, float64[tokens, heads, size], for each of its layers.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: Mapping[str, Any], kept: list[tuple[Array, Array]]
    ) -> None:
        super().__init__(path, config)
        self.lent = kept
        self.pair = np.empty(0)

    def continued(self, embedding: Array, state: Array) -> tuple[Array, Array]:
        """The logits of the next token and the state of the next pair."""
        self.pair = np.concatenate([embedding, state])[None]
        final = self.hidden([0])[-1]
        return self.output(final)[0], self.linear(final, "nextn.post_projection")[0]

    def start(self, tokens: Any) -> Array:
        """A row made of both halves."""
        return self.linear(self.pair, "nextn.pre_projection")

    def attention(self, layer: int, x: Array, context: int) -> Array:
        """The query stands behind the text, whose last token is the first that a window counts beyond itself."""
        key, value = self.lent[layer]
        size, heads = key.shape[-1], self.setting("heads", layer=layer)
        query = self.norm(self.linear(x, f"blk.{layer}.attn_q").reshape(1, heads, size), f"blk.{layer}.attn_q_norm")
        query = rotate(query, *self.rotation(layer, np.array([len(key)]), context), "neox")[0]
        window = self.setting("window", layer=layer)
        seen = slice(max(len(key) - window - 1, 0) if window else 0, None)
        attended = np.empty((heads, value.shape[-1]))
        for head in range(heads):
            group = head * key.shape[1] // heads
            attended[head] = softmax(query[head] @ key[seen, group].T) @ value[seen, group]
        return self.linear(attended.reshape(1, -1), f"blk.{layer}.attn_output")
