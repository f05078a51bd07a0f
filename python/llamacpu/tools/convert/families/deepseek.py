"""DeepSeek V2 and V3: latent attention, whose second projection of keys and values is stored as two."""

from __future__ import annotations

import re

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named

__all__ = ["Deepseek2"]

_LAYER = re.compile(r"model\.layers\.(\d+)\.")


class Deepseek2(Family):
    """DeepSeek V2, V2 Lite, V3 and R1."""

    architecture = "deepseek2"

    def set_parameters(self) -> None:
        config = self.config
        heads = config.get("num_key_value_heads")
        config["num_key_value_heads"] = 1  # keys and values of all heads come from one latent vector
        config.setdefault("rms_norm_eps", 1e-6)
        super().set_parameters()
        config["num_key_value_heads"] = heads
        dense = config.get("first_k_dense_replace")
        if dense is None:
            dense = 0 if config.get("n_routed_experts") is not None else self.layers
        self.keys.set("leading_dense_block_count", dense)
        self.keys.set("vocab_size", config.get("vocab_size"))
        if config.get("q_lora_rank") is not None:
            self.keys.set("attention.q_lora_rank", config["q_lora_rank"])
        rank, rotated = self.source.integer("kv_lora_rank"), self.source.integer("qk_rope_head_dim")
        unrotated = self.source.integer("qk_nope_head_dim")
        self.keys.set("attention.kv_lora_rank", rank)
        self.keys.set("attention.key_length", rank + rotated)
        self.keys.set("attention.value_length", rank)
        self.keys.set("attention.key_length_mla", unrotated + rotated)
        self.keys.set("attention.value_length_mla", config.get("v_head_dim"))
        self.keys.set("expert_feed_forward_length", self.source.integer("moe_intermediate_size", "intermediate_size"))
        if config.get("n_routed_experts") is not None:
            self.keys.set("expert_count", config["n_routed_experts"])
        self.keys.set("expert_shared_count", config.get("n_shared_experts", 0))
        if config.get("routed_scaling_factor") is not None:
            self.keys.set("expert_weights_scale", config["routed_scaling_factor"])
        if config.get("norm_topk_prob"):
            self.keys.set("expert_weights_norm", config["norm_topk_prob"])
        self.keys.set("rope.dimension_count", rotated)
        if self.source.rope.get("mscale_all_dim") is not None:
            self.keys.set("rope.scaling.yarn_log_multiplier", 0.1 * self.source.rope_number("mscale_all_dim"))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        match = _LAYER.match(name)
        if match and int(match[1]) >= self.layers:
            return  # layers that predict further tokens
        if name in ("lm_head.weight", "model.lm_head.weight") and self.config.get("tie_word_embeddings"):
            return
        if "mlp.experts" in name:
            parts = ("down_proj", "gate_proj", "up_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.source.integer("n_routed_experts"))
        elif name.endswith("kv_b_proj.weight"):
            yield from self._split(name, array)
        else:
            yield from super().converted(name, array, layer)

    def _split(self, name: str, array: Array) -> Named:
        heads, values = self.source.key_value_heads, self.source.integer("v_head_dim")
        keys, rank = self.source.integer("qk_nope_head_dim"), array.shape[-1]
        if array.shape != (heads * (keys + values), rank):
            raise CheckpointError(
                f"the tensor {name!r:.120} has the shape {array.shape}; expected {heads * (keys + values)} rows"
            )
        by_head = (heads, keys + values, rank)
        yield (
            name.replace("kv_b_proj", "k_b_proj"),
            array.whole((heads, rank, keys), lambda a: a.reshape(by_head)[:, :keys].swapaxes(1, 2)),
        )
        yield (
            name.replace("kv_b_proj", "v_b_proj"),
            array.whole((heads, values, rank), lambda a: a.reshape(by_head)[:, keys:]),
        )
