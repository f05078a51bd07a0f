"""Baichuan, XVERSE and Orion."""

from __future__ import annotations

import numpy as np

from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named, permuted, split_rows
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces

__all__ = ["Baichuan", "Orion", "Xverse"]

BAICHUAN_2_SIZE = 125696
_LAYOUT = "Meta AI original pth"


class _Pieces(Family):
    """A vocabulary of pieces, and rows of queries and keys in the order in which pairs are rotated."""

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("tensor_data_layout", _LAYOUT)
        self.keys.set("rope.dimension_count", self.source.integer("hidden_size") // self.source.heads)

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def with_pairs(self, name: str, part: str, array: Array) -> Array:
        """The queries ("q") or keys ("k") in that order."""
        heads, key_heads = self.source.heads, self.source.key_value_heads
        if part == "k" and heads != key_heads:
            heads //= key_heads
        return permuted(array, heads, name)


class Baichuan(_Pieces):
    """Baichuan 1 and 2.

    The output matrix of Baichuan 2 is divided by the length of its rows, as its code does at run time: no key says it.
    """

    architecture = "baichuan"

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith("self_attn.W_pack.weight"):
            rows = array.shape[0] // 3
            parts = split_rows(array, {"q": rows, "k": rows, "v": rows}, name)
            yield f"blk.{layer}.attn_q.weight", self.with_pairs(name, "q", parts["q"])
            yield f"blk.{layer}.attn_k.weight", self.with_pairs(name, "k", parts["k"])
            yield f"blk.{layer}.attn_v.weight", parts["v"]
        elif name == "lm_head.weight" and self.config.get("vocab_size") == BAICHUAN_2_SIZE:
            yield name, array.each(_unit_rows)
        else:
            yield name, array


def _unit_rows(values: Floats) -> Floats:
    lengths = np.sqrt(np.sum(np.square(values, dtype=np.float64), axis=-1, keepdims=True))
    result: Floats = (values / np.maximum(lengths, 1e-12)).astype(np.float32)
    return result


class Xverse(_Pieces):
    """XVERSE."""

    architecture = "xverse"

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            array = self.with_pairs(name, name[-len("q_proj.weight")], array)
        yield name, array


class Orion(Family):
    """Orion."""

    architecture = "orion"

    def set_parameters(self) -> None:
        source, keys = self.source, self.keys
        keys.add("general.file_type", self.file_type, "uint32")
        keys.set("tensor_data_layout", _LAYOUT)
        keys.set("context_length", source.integer("max_sequence_length", "max_position_embeddings", "model_max_length"))
        keys.set("embedding_length", source.integer("hidden_size"))
        keys.set("block_count", self.layers)
        keys.set("feed_forward_length", source.integer("intermediate_size"))
        keys.set("attention.head_count", source.heads)
        keys.set("attention.head_count_kv", source.key_value_heads)
        # The configuration calls it the epsilon of an RMS norm; the model's norms are layer norms.
        keys.set("attention.layer_norm_epsilon", source.number("rms_norm_eps"))

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)
