"""DeepSeek V2, V3 and V3.2, Mistral 4, GLM 4.7 Flash and GLM 5: latent attention.

Its second projection of keys and values is stored as two.
"""

from __future__ import annotations

import re

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.families.glm import Glm4Moe
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder

__all__ = ["Deepseek2", "Deepseek32", "Glm4MoeLite", "GlmDsa", "Mistral4"]

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


class Mistral4(Deepseek2):
    """Mistral 4: experts are stored as one tensor, and queries are scaled by their position."""

    architecture = "mistral4"

    def set_parameters(self) -> None:
        super().set_parameters()
        beta = self.source.rope.get("llama_4_scaling_beta")
        if beta is not None:
            self.keys.set("attention.temperature_scale", beta)
            length = self.source.rope.get("original_max_position_embeddings")
            self.keys.set("attention.temperature_length", length)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith((".experts.down_proj", ".experts.gate_up_proj")):
            yield f"{name}.weight", array
        else:
            yield from super().converted(name, array, layer)


class Deepseek32(Deepseek2):
    """DeepSeek V3.2: an index chooses the keys, and there is a layer that predicts further tokens."""

    architecture = "deepseek32"

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        further = self.config.get("num_nextn_predict_layers", 0)
        self.layers: int = source.layers + (further if isinstance(further, int) and 0 <= further < 100 else 0)

    def set_index(self) -> None:
        """Set the keys of the layers that predict and of the index."""
        keys, source = self.keys, self.source
        if self.config.get("num_nextn_predict_layers") is not None:
            keys.set("nextn_predict_layers", self.config["num_nextn_predict_layers"])
        keys.set("attention.indexer.head_count", source.integer("index_n_heads"))
        keys.set("attention.indexer.key_length", source.integer("index_head_dim"))
        keys.set("attention.indexer.top_k", source.integer("index_topk"))

    def set_parameters(self) -> None:
        super().set_parameters()
        self.set_index()

    def set_vocabulary(self) -> None:
        if self.folder.config.get("add_bos_token") is False:
            raise CheckpointError(
                "tokenizer_config.json: add_bos_token is false; set it to true, as the model needs it"
            )
        super().set_vocabulary()


class GlmDsa(Deepseek32):
    """GLM 5: as DeepSeek V3.2, with layers that reuse the choice of an earlier one."""

    architecture = "glm-dsa"

    def set_parameters(self) -> None:
        Deepseek2.set_parameters(self)
        share = self.source.rope_number("partial_rotary_factor", 1.0)
        self.keys.set("rope.dimension_count", int(self.source.integer("qk_rope_head_dim") * share))
        self.set_index()
        self.keys.set("attention.indexer.types", [kind == "full" for kind in self._kinds()])

    def _kinds(self) -> list[str]:
        found, pattern = self.config.get("indexer_types"), self.config.get("index_topk_pattern")
        if found is None and isinstance(pattern, str):
            found = ["full" if letter == "F" else "shared" for letter in pattern]
        if found is None:
            every, offset = self.config.get("index_topk_freq", 1), self.config.get("index_skip_topk_offset", 2)
            if not isinstance(every, int) or not isinstance(offset, int):
                raise CheckpointError("config.json: index_topk_freq and index_skip_topk_offset; expected numbers")
            layers = range(self.source.layers)
            found = ["shared" if max(at - offset + 1, 0) % max(every, 1) else "full" for at in layers]
        if not isinstance(found, list) or len(found) != self.source.layers:
            raise CheckpointError(f"config.json: indexer_types is {found!r:.60}; expected one for each layer")
        return found

    def set_vocabulary(self) -> None:
        Glm4Moe.set_vocabulary(self)  # type: ignore[arg-type]

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        """As those of GLM 4.5."""
        return Glm4Moe.special_texts(self)  # type: ignore[arg-type]


class Glm4MoeLite(Deepseek2):
    """GLM 4.7 Flash: DeepSeek V3 with the tokenizer of GLM 4.5."""

    architecture = "deepseek2"

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        further = self.config.get("num_nextn_predict_layers", 0)
        self._further: int = further if isinstance(further, int) and 0 <= further < 100 else 0
        self.layers: int = source.layers + self._further

    def set_parameters(self) -> None:
        super().set_parameters()
        if self._further:
            self.keys.set("nextn_predict_layers", self._further)

    def set_vocabulary(self) -> None:
        Glm4Moe.set_vocabulary(self)  # type: ignore[arg-type]

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        """As those of GLM 4.5."""
        return Glm4Moe.special_texts(self)  # type: ignore[arg-type]
