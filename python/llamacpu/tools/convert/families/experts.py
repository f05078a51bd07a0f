"""Families with experts whose dense parts differ: Ling, DBRX and MiniMax M2."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named, permuted, split_rows

__all__ = ["BailingMoe", "Dbrx", "MiniMaxM2"]

_PARTS = ("down_proj", "gate_proj", "up_proj")


class BailingMoe(Family):
    """Ling lite and plus."""

    architecture = "bailingmoe"

    def set_parameters(self) -> None:
        super().set_parameters()
        keys, config = self.keys, self.config
        keys.set("rope.dimension_count", self.source.head_size)
        keys.set("leading_dense_block_count", config.get("first_k_dense_replace"))
        keys.set("vocab_size", config.get("vocab_size"))
        keys.set("expert_feed_forward_length", config.get("moe_intermediate_size"))
        keys.set("expert_weights_scale", 1.0)
        keys.set("expert_shared_count", config.get("num_shared_experts"))
        keys.set("expert_weights_norm", config.get("norm_topk_prob"))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        heads, key_heads, size = self.source.heads, self.source.key_value_heads, self.source.head_size
        if name.endswith("query_key_value.weight"):
            sizes = {"q": heads * size, "k": key_heads * size, "v": key_heads * size}
            parts = split_rows(array, sizes, name)
            yield f"blk.{layer}.attn_q.weight", permuted(parts["q"], heads, name)
            yield f"blk.{layer}.attn_k.weight", permuted(parts["k"], key_heads, name)
            yield f"blk.{layer}.attn_v.weight", parts["v"]
        elif "mlp.experts" in name:
            yield from self.stacked_experts(name, array, layer, _PARTS, self.number_of_experts())
        elif name == "lm_head.weight" and self.config.get("norm_head"):
            yield name, array.whole(array.shape, _unit_columns)
        else:
            yield name, array


def _unit_columns(values: Floats) -> Floats:
    lengths = np.sqrt(np.sum(np.square(values, dtype=np.float64), axis=0, keepdims=True)).astype(np.float32)
    result: Floats = values / (lengths + np.float32(1e-7))
    return result


class Dbrx(Family):
    """DBRX."""

    architecture = "dbrx"
    reduces_routers = True
    names: ClassVar[Mapping[str, str]] = {
        "norm_attn_norm.norm_1": "attn_norm", "norm_attn_norm.norm_2": "attn_output_norm",
        "norm_attn_norm.attn.Wqkv": "attn_qkv", "norm_attn_norm.attn.out_proj": "attn_output",
        "ffn.router.layer": "ffn_gate_inp", "ffn.experts.mlp.w1": "ffn_gate_exps", "ffn.experts.mlp.v1": "ffn_up_exps",
        "ffn.experts.mlp.w2": "ffn_down_exps",
    }  # fmt: skip

    def _part(self, name: str) -> dict[str, Any]:
        found = self.config.get(name)
        if not isinstance(found, dict):
            raise CheckpointError(f"config.json: {name} is {found!r:.60}; expected an object")
        return found

    def set_parameters(self) -> None:
        attention, experts, keys, config = self._part("attn_config"), self._part("ffn_config"), self.keys, self.config
        keys.set("block_count", self.layers)
        keys.set("context_length", config.get("max_seq_len"))
        keys.set("embedding_length", config.get("d_model"))
        keys.set("feed_forward_length", experts.get("ffn_hidden_size"))
        keys.set("attention.head_count", config.get("n_heads"))
        keys.set("attention.head_count_kv", attention.get("kv_n_heads"))
        keys.set("rope.freq_base", attention.get("rope_theta"))
        keys.set("attention.clamp_kqv", attention.get("clip_qkv"))
        keys.set("expert_count", experts.get("moe_num_experts"))
        keys.set("expert_used_count", experts.get("moe_top_k"))
        keys.set("attention.layer_norm_epsilon", 1e-5)
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "ffn.experts.mlp." not in name:
            yield name, array
            return
        sizes = self._part("ffn_config")
        given = (sizes.get("moe_num_experts"), sizes.get("ffn_hidden_size"), self.config.get("d_model"))
        shape = [size if isinstance(size, int) else 0 for size in given]
        if min(shape) <= 0 or math.prod(shape) != math.prod(array.shape):
            raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; is config.json sound?")
        array = array.reshaped(shape)
        yield f"{name}.weight", array.transposed() if name.endswith("w2") else array


class MiniMaxM2(Family):
    """MiniMax M2 and M2.1."""

    architecture = "minimax-m2"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("expert_feed_forward_length", self.source.integer("intermediate_size"))
        self.keys.set("rope.dimension_count", self.source.integer("rotary_dim"))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "block_sparse_moe.experts." in name:
            parts, merged = ("w1", "w2", "w3"), "block_sparse_moe.experts"
            yield from self.stacked_experts(name, array, layer, parts, self.number_of_experts(), merged)
        else:
            yield name, array
