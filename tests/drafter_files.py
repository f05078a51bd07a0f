"""Drafters of random weights, and their definition in NumPy and float64."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import further_families
from config_models import tensors
from llamacpu.families.config import Config
from reference_functions import Array, softmax
from reference_model import ReferenceModel

LAYERS, CONTEXT, VOCABULARY, WIDTH = further_families.LAYERS, further_families.CONTEXT, 50, 48
PREDICTED = {"block_count": LAYERS + 1, "nextn_predict_layers": 1}
"""Keys of a model with a layer for multi-token prediction."""
EAGLE = Config(
    architecture="eagle3", vocab_size=VOCABULARY, context_length=CONTEXT, embedding_length=WIDTH, layers=1,
    feed_forward=[40], heads=[6], kv_heads=[2], key_size=8, value_size=8, norm_epsilon=1e-5, rope_size=8,
    rope_original_context=CONTEXT,
)  # fmt: skip


BLOCK = replace(
    EAGLE, architecture="dflash", layers=2, feed_forward=[40] * 2, heads=[6] * 2, kv_heads=[2] * 2, rope_style="neox",
    query_key_norm=["head"] * 2, norms="both",
)  # fmt: skip


class ReferenceBlock(ReferenceModel):
    """DFlash: a block of embeddings behind the states of a text, of which every layer makes keys and values.

    A row sees those after it, but of those before it only as many as a window holds.
    """

    causal = False

    def block(self, states: Array, rows: Array) -> Array:
        """The states of the block's rows, float64[rows, width], after the final norm."""
        joined = np.concatenate(list(np.asarray(states, dtype=np.float64)), axis=1)
        self.text = self.norm(self.linear(joined, "fc"), "enc.output_norm")
        self.rows = np.asarray(rows, dtype=np.float64)
        return self.hidden(list(range(len(rows))))[-1]

    def start(self, tokens: Any) -> Array:
        """The rows as they are."""
        return self.rows

    def attention(self, layer: int, x: Array, context: int) -> Array:
        """All rows see the text and each other."""
        query, key, value = self._projected(layer, np.concatenate([self.text, x]), context)
        attended = np.empty((len(x), 6, 8))
        window, places = self.setting("row_window", len(key), layer) or len(key), np.arange(len(key))
        distance = places[len(self.text) :, None] - places
        seen = (distance < window) & ((distance >= 0) | (not self.causal))
        for head in range(6):
            scores = query[len(self.text) :, head] @ key[:, head // 3].T * (self.setting("attention_scale") or 8**-0.5)
            attended[:, head] = softmax(np.where(seen, scores, -np.inf)) @ value[:, head // 3]
        return self.linear(attended.reshape(len(x), -1), f"blk.{layer}.attn_output")


class ReferencePairs(ReferenceModel):
    """A drafter that takes pairs of an embedding and a state: float64[rows, 2 x width] in place of tokens.

    kind: "projected" for multi-token prediction, "split" for EAGLE-3, "normed" for its variant whose residual stream
    begins with the normalized state. rename: names in the file to names here.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: Mapping[str, Any], kind: str, rename: dict[str, str] | None = None
    ) -> None:
        super().__init__(path, config)
        self.kind = kind
        if rename:
            found = {new: self._tensors[old] for old, new in rename.items()}
            self._tensors = {name: one for name, one in self._tensors.items() if name[:4] != "blk."} | found
        self.rows = np.empty((0, 0))

    def start(self, tokens: Any) -> Array:
        """The second halves, or the product of both normalized halves with a matrix."""
        self.rows = np.asarray(tokens, dtype=np.float64)
        width = self.rows.shape[1] // 2
        first, second = self.rows[:, :width], self.rows[:, width:]
        if self.kind == "projected":
            both = np.concatenate([self.norm(first, "nextn.enorm"), self.norm(second, "nextn.hnorm")], axis=1)
            return self.linear(both, "nextn.eh_proj")
        return self.norm(second, "blk.0.attn_norm_2") if self.kind == "normed" else second

    def attention_input(self, layer: int, x: Array) -> Array:
        """Both halves, each normalized."""
        if self.kind == "projected":
            return super().attention_input(layer, x)
        width = x.shape[1]
        first, second = self.rows[:, :width], self.rows[:, width:]
        return np.concatenate([self.norm(first, "blk.0.attn_norm"), self.norm(second, "blk.0.attn_norm_2")], axis=1)

    def fused(self, states: Array, before: bool) -> Array:
        """What EAGLE-3 makes of states[places, tokens, width]."""
        joined = np.concatenate(list(np.asarray(states, dtype=np.float64)), axis=1)
        return self.linear(self.norm(joined, "enc.output_norm") if before else joined, "fc")


def write_model(path: Path, name: str, *, own: bool = False, seed: int = 5) -> Path:
    """A model of the family with a layer for multi-token prediction; `own`: with all that such a layer may have.

    Open it with the keys in `PREDICTED`, after the name and a dot.
    """
    random = np.random.default_rng(seed)
    start = f"blk.{LAYERS}."
    parts = tensors(single(further_families.expected(name)), random, False, False)
    more = {f"{start}{key[6:]}": value for key, value in parts.items() if key.startswith("blk.0.")}
    more |= {f"{start}nextn.{part}.weight": 1 + 0.2 * random.standard_normal(WIDTH) for part in ("enorm", "hnorm")}
    more[f"{start}nextn.eh_proj.weight"] = random.standard_normal((WIDTH, 2 * WIDTH)) * 0.1
    if own:
        more[f"{start}nextn.shared_head_norm.weight"] = 1 + 0.2 * random.standard_normal(WIDTH)
        for part in ("shared_head_head", "embed_tokens"):
            more[f"{start}nextn.{part}.weight"] = random.standard_normal((VOCABULARY, WIDTH)) * 0.2
    return further_families.write(path, name, more)


def single(config: Config) -> Config:
    """The configuration of one layer with attention and without selection."""
    lists: dict[str, Any] = {
        name: value[-1:] for name, value in config.items() if isinstance(value, list) and len(value) == config.layers
    }
    return replace(config, **lists | {"layers": 1, "recurrent_heads": [], "indexer": [], "kv_source": []})


def write_eagle(
    path: Path,
    *,
    layers: list[int] | None = None,
    rows: int = VOCABULARY,
    keys: dict[str, Any] | None = None,
    own_embedding: bool = False,
    output: bool = True,
    tokens: list[str] | None = None,
    width: int = WIDTH,
    drop: tuple[str, ...] = (),
    more: dict[str, Any] | None = None,
    seed: int = 6,
) -> Path:
    """An EAGLE-3 drafter; `rows`: of its output matrix, fewer than the vocabulary with a map."""
    random = np.random.default_rng(seed)
    config = replace(EAGLE, embedding_length=width)
    found = tensors(config, random, False, False)
    for part, size in (("q", 48), ("k", 16), ("v", 16)):
        found[f"blk.0.attn_{part}.weight"] = random.standard_normal((size, 2 * width)) * 0.1
    found["blk.0.attn_norm_2.weight"] = 1 + 0.2 * random.standard_normal(width)
    found["fc.weight"] = random.standard_normal((width, 3 * width)) * 0.1
    found["output.weight"] = random.standard_normal((rows, width)) * 0.2
    if keys and keys.get("norm_before_fc"):
        found["enc.output_norm.weight"] = 1 + 0.2 * random.standard_normal(3 * width)
    if not own_embedding:
        del found["token_embd.weight"]
    if not output:
        del found["output.weight"]
    found |= more or {}
    for name in drop:
        del found[name]
    integers = {} if rows == VOCABULARY else {"d2t": np.sort(random.permutation(VOCABULARY)[:rows]).astype(np.int64)}
    facts: dict[str, Any] = {
        "block_count": 1, "context_length": CONTEXT, "embedding_length": width, "feed_forward_length": 40,
        "attention.head_count": 6, "attention.head_count_kv": 2, "attention.key_length": 8,
        "attention.value_length": 8, "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": 8,
        "target_layers": layers or [1, 2, 4], "target_hidden_size": width,
    }  # fmt: skip
    return write_drafter(path, "eagle3", facts | (keys or {}), found, integers, tokens)


def write_block(
    path: Path,
    *,
    block: int = 6,
    keys: dict[str, Any] | None = None,
    drop: tuple[str, ...] = (),
    more: dict[str, Any] | None = None,
    seed: int = 8,
) -> Path:
    """A DFlash drafter of two layers, with norms behind its blocks; keys that are None are left out."""
    random = np.random.default_rng(seed)
    found = tensors(BLOCK, random, False, False)
    del found["token_embd.weight"], found["output.weight"]
    found["fc.weight"] = random.standard_normal((WIDTH, 3 * WIDTH)) * 0.1
    found["enc.output_norm.weight"] = 1 + 0.2 * random.standard_normal(WIDTH)
    facts: dict[str, Any] = {
        "block_count": 2, "context_length": CONTEXT, "embedding_length": WIDTH, "feed_forward_length": 40,
        "attention.head_count": 6, "attention.head_count_kv": 2, "attention.key_length": 8,
        "attention.value_length": 8, "attention.layer_norm_rms_epsilon": 1e-5, "rope.dimension_count": 8,
        "target_layers": [1, 2, 4], "block_size": block, "tokenizer.ggml.mask_token_id": 7,
    }  # fmt: skip
    found |= more or {}
    for name in drop:
        del found[name]
    return write_drafter(path, "dflash", facts | (keys or {}), found)


def write_drafter(
    path: Path,
    name: str,
    keys: dict[str, Any],
    floats: dict[str, Any],
    integers: dict[str, Any] | None = None,
    tokens: list[str] | None = None,
) -> Path:
    """A file of this architecture."""
    writer = gguf.GGUFWriter(path, name)
    writer.add_token_list(tokens or [f"t{index}" for index in range(VOCABULARY)])
    writer.add_tokenizer_model("gpt2")
    for key, value in keys.items():
        if value is None:
            continue
        add: dict[type, Any] = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
        add[list] = writer.add_array
        full = key if key.startswith("tokenizer.") else f"{name}.{key}"
        add.get(type(value), writer.add_string)(full, value)
    for tensor, data in floats.items():
        writer.add_tensor(tensor, np.asarray(data).astype(np.float32))
    for tensor, data in (integers or {}).items():
        writer.add_tensor(tensor, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
