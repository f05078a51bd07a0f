"""Families of earlier years and their forms: GPT-NeoX, BLOOM, MPT, Phi 3.5 MoE, DeepSeek MoE."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.families.phi import Phi3
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.pieces import has_pieces, set_pieces

__all__ = ["Bloom", "DeepseekMoe", "GptNeox", "Mpt", "PhiMoe"]


def _by_kind(array: Array, heads: int, name: str) -> Array:
    """Rows that are stored head by head (query, key, value of each), as all queries, all keys, all values."""
    rows = array.shape[0] if array.shape else 0
    if rows == 0 or rows % (3 * heads):
        raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; expected rows for {heads} heads")

    def order(values: Floats) -> Floats:
        by_head = values.reshape(heads, 3, rows // heads // 3, *values.shape[1:])
        return np.concatenate([by_head[:, part].reshape(-1, *values.shape[1:]) for part in range(3)])

    return array.whole(array.shape, order)


class GptNeox(Family):
    """GPT-NeoX and Pythia."""

    architecture = "gptneox"

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("context_length", self.config.get("max_position_embeddings"))
        keys.set("embedding_length", self.config.get("hidden_size"))
        keys.set("block_count", self.layers)
        keys.set("feed_forward_length", self.config.get("intermediate_size"))
        share = self.config.get("rotary_pct")
        if not isinstance(share, float):
            share = source.rope_number("partial_rotary_factor", 0.25)
        keys.set("rope.dimension_count", int(share * (source.integer("hidden_size") // source.heads)))
        keys.set("attention.head_count", source.heads)
        keys.set("use_parallel_residual", self.config.get("use_parallel_residual", True))
        keys.set("attention.layer_norm_epsilon", self.config.get("layer_norm_eps"))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        yield name, _by_kind(array, self.source.heads, name) if ".query_key_value." in name else array

    def renamed(self, name: str) -> str | None:
        return None if name.endswith((".attention.bias", ".attention.masked_bias")) else super().renamed(name)


class Bloom(Family):
    """BLOOM."""

    architecture = "bloom"

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        width, heads = source.integer("hidden_size", "n_embed"), source.heads
        keys.set("context_length", self.config.get("seq_length", width))
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", 4 * width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", heads)
        keys.set("attention.head_count_kv", heads)
        keys.set("attention.layer_norm_epsilon", self.config.get("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        yield name, _by_kind(array, self.source.heads, name) if ".query_key_value." in name else array


class Mpt(Family):
    """MPT."""

    architecture = "mpt"
    names: ClassVar[Mapping[str, str]] = {
        "norm_1": "attn_norm", "norm_2": "ffn_norm", "ffn.up_proj": "ffn_up", "ffn.down_proj": "ffn_down",
        "transformer.norm_f": "output_norm",
    }  # fmt: skip

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        found = self.config.get("attn_config")
        attention: dict[str, Any] = found if isinstance(found, dict) else {}
        keys.set("context_length", self.config.get("max_seq_len"))
        keys.set("embedding_length", source.integer("d_model"))
        keys.set("block_count", self.layers)
        keys.set("feed_forward_length", 4 * source.integer("d_model"))
        keys.set("attention.head_count", source.heads)
        if attention.get("kv_n_heads"):
            keys.set("attention.head_count_kv", attention["kv_n_heads"])
        keys.set("attention.layer_norm_epsilon", 1e-5)
        if attention.get("clip_qkv") is not None:
            keys.set("attention.clamp_kqv", attention["clip_qkv"])
        keys.set(
            "attention.max_alibi_bias", attention.get("alibi_bias_max", 8) if attention.get("alibi", True) else 0.0
        )


class PhiMoe(Phi3):
    """Phi 3.5 MoE."""

    architecture = "phimoe"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("expert_used_count", self.source.integer("num_experts_per_tok", "num_experts_per_token"))
        self.keys.set("expert_count", self.number_of_experts())

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "block_sparse_moe.experts" in name:
            parts, merged = ("w1", "w2", "w3"), "block_sparse_moe.experts"
            yield from self.stacked_experts(name, array, layer, parts, self.number_of_experts(), merged)
        else:
            yield name, array


class DeepseekMoe(Family):
    """DeepSeek MoE 16B, with attention like Llama's."""

    architecture = "deepseek"
    permutes = True

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, config = self.keys, self.config
        keys.set("rope.dimension_count", self.source.head_size)
        keys.set("rope.scaling.type", "none")
        keys.set("leading_dense_block_count", config.get("first_k_dense_replace"))
        keys.set("vocab_size", config.get("vocab_size"))
        keys.set("expert_feed_forward_length", config.get("moe_intermediate_size"))
        keys.set("expert_weights_scale", 1.0)
        keys.set("expert_count", config.get("n_routed_experts"))
        keys.set("expert_shared_count", config.get("n_shared_experts"))

    def set_vocabulary(self) -> None:
        (set_pieces if has_pieces(self.folder) else set_byte_pair)(self.folder, self.config, self.keys)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "mlp.experts" in name:
            parts = ("down_proj", "gate_proj", "up_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.source.integer("n_routed_experts"))
        else:
            yield from super().converted(name, array, layer)
