"""Llama and its relatives: rows of queries and keys are permuted."""

from __future__ import annotations

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array, Floats
from llamacpu.tools.convert.families.base import Family, Named, split_rows
from llamacpu.tools.convert.rope import long_factors
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.pieces import (
    has_pieces,
    is_merged_pieces,
    set_any_pieces,
    set_merged_pieces,
    set_pieces,
)
from llamacpu.tools.convert.tokenizers.ranks import has_ranks, set_ranks
from llamacpu.tools.convert.tokenizers.tekken import has_tekken, set_tekken

__all__ = ["Arcee", "Granite", "GraniteMoe", "Llama", "Llama4", "MiniCpm", "Mistral3", "SmolLM3"]

CODE_LLAMA_SIZE, GRANITE_CODE_SIZE = 32016, 49152
LLAMA_4_CONSTANT = 8192


class Llama(Family):
    """Llama, Mistral and Mixtral."""

    architecture = "llama"
    permutes = True

    def renamed(self, name: str) -> str | None:
        return super().renamed(name.replace("text_model.", ""))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if self.source.architecture == "LlamaModel":
            name = f"model.{name}"
        if "block_sparse_moe.experts" in name:
            parts, merged = ("w1", "w2", "w3"), "block_sparse_moe.experts"
            yield from self.stacked_experts(name, array, layer, parts, self.number_of_experts(), merged)
            return
        yield from super().converted(name, array, layer)

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("vocab_size", self.config.get("vocab_size"))
        self.keys.set("rope.dimension_count", self.source.head_size)

    def set_vocabulary(self) -> None:
        if has_tekken(self.folder):
            set_tekken(self.folder, self.keys)
            return
        if has_ranks(self.folder):
            set_ranks(self.folder, self.config, self.keys)
            return
        prefix = self.folder.config.get("add_prefix_space")
        if isinstance(prefix, bool):
            self.keys.add("tokenizer.ggml.add_space_prefix", prefix, "bool")
        if has_pieces(self.folder):
            set_pieces(self.folder, self.config, self.keys)
        elif is_merged_pieces(self.folder):
            set_merged_pieces(self.folder, self.config, self.keys)
        else:
            set_byte_pair(self.folder, self.config, self.keys)
        if self.config.get("vocab_size") == CODE_LLAMA_SIZE:
            self.keys.add("tokenizer.ggml.eot_token_id", 32010, "uint32")
        if self.config.get("vocab_size") == GRANITE_CODE_SIZE:
            self.keys.add("tokenizer.ggml.add_bos_token", False, "bool")


class Arcee(Llama):
    """Arcee's AFM."""

    architecture = "arcee"


class SmolLM3(Llama):
    """SmolLM 3, which has layers without a position embedding."""

    architecture = "smollm3"


class Mistral3(Llama):
    """Ministral 3: YaRN, and queries scaled by their position."""

    architecture = "mistral3"

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.source.model_type == "ministral3":
            if self.source.rope.get("rope_type") != "yarn":
                raise CheckpointError("config.json: ministral3 without YaRN; expected rope_parameters of the type yarn")
            self.keys.set("rope.scaling.yarn_log_multiplier", self.source.rope_number("mscale_all_dim"))
            self.keys.set("attention.temperature_scale", self.source.rope_number("llama_4_scaling_beta"))


class Granite(Llama):
    """Granite 3: embeddings, attention, residuals and logits are scaled."""

    architecture = "granite"

    def set_parameters(self) -> None:
        self.config.pop("head_dim", None)
        super().set_parameters()
        for key, name in (
            ("attention.scale", "attention_multiplier"),
            ("embedding_scale", "embedding_multiplier"),
            ("residual_scale", "residual_multiplier"),
            ("logit_scale", "logits_scaling"),
        ):
            if self.config.get(name):
                self.keys.set(key, self.config[name])


class GraniteMoe(Granite):
    """The same with experts, whose gates and ups are one tensor."""

    architecture = "granitemoe"

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.config.get("shared_intermediate_size"):
            self.keys.set("expert_shared_feed_forward_length", self.config["shared_intermediate_size"])

    def converted(self, name: str, array: Array, layer: int) -> Named:
        shared = "_shexp" if self.config.get("num_local_experts") else ""
        if name.endswith("block_sparse_moe.input_linear.weight"):
            half = self.source.integer("intermediate_size")
            self._check_halves(name, array, half)
            shape = (array.shape[0], half, array.shape[2])
            yield f"blk.{layer}.ffn_gate_exps.weight", array.whole(shape, lambda a: a[:, :half])
            yield f"blk.{layer}.ffn_up_exps.weight", array.whole(shape, lambda a: a[:, half:])
        elif name.endswith("shared_mlp.input_linear.weight"):
            half = self.source.integer("shared_intermediate_size")
            parts = split_rows(array, {"gate": half, "up": half}, name)
            yield f"blk.{layer}.ffn_gate{shared}.weight", parts["gate"]
            yield f"blk.{layer}.ffn_up{shared}.weight", parts["up"]
        elif not shared and name.endswith("shared_mlp.output_linear.weight"):
            yield f"blk.{layer}.ffn_down.weight", array
        else:
            yield from super().converted(name, array, layer)

    def _check_halves(self, name: str, array: Array, half: int) -> None:
        if len(array.shape) != 3 or array.shape[1] != 2 * half:
            raise CheckpointError(
                f"the tensor {name!r:.120} has the shape {array.shape}; expected {2 * half} rows for each expert"
            )


class Llama4(Llama):
    """The text model of Llama 4."""

    architecture = "llama4"
    permutes = False

    def set_parameters(self) -> None:
        moe = self.config.get("intermediate_size")
        self.config["intermediate_size"] = self.config.get("intermediate_size_mlp")
        super().set_parameters()
        self.keys.set("interleave_moe_layer_step", self.config.get("interleave_moe_layer_step"))
        self.keys.set("expert_feed_forward_length", moe)
        for key, name in (("chunk_size", "attention_chunk_size"), ("temperature_length", "floor_scale")):
            if self.config.get(name, LLAMA_4_CONSTANT) != LLAMA_4_CONSTANT:  # what every published model has
                self.keys.set(f"attention.{key}", self.config[name])
        kinds = self.config.get("layer_types")
        if isinstance(kinds, list) and all(kind == "full_attention" for kind in kinds):
            self.keys.set("attention.sliding_window", 0)

    def set_vocabulary(self) -> None:
        set_byte_pair(self.folder, self.config, self.keys)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "gate_up_proj" in name and len(array.shape) == 3:
            half = array.shape[2] // 2
            shape = (array.shape[0], half, array.shape[1])
            yield name.replace("gate_up_proj", "gate_proj.weight"), array.whole(shape, lambda a: _columns(a, 0, half))
            yield (
                name.replace("gate_up_proj", "up_proj.weight"),
                array.whole(shape, lambda a: _columns(a, half, 2 * half)),
            )
        elif name.endswith("down_proj"):
            yield f"{name}.weight", array.transposed()
        else:
            yield from super().converted(name, array, layer)


def _columns(array: Floats, start: int, stop: int) -> Floats:
    return array[:, :, start:stop].swapaxes(1, 2)


class MiniCpm(Family):
    """MiniCPM 1 and 4."""

    architecture = "minicpm"
    permutes = True

    def set_parameters(self) -> None:
        super().set_parameters()
        source = self.source
        self.keys.set("embedding_scale", float(source.number("scale_emb")))
        self.keys.set("residual_scale", source.number("scale_depth") / source.integer("num_hidden_layers") ** 0.5)
        base = source.number("dim_model_base")
        if base <= 0:
            raise CheckpointError(f"config.json: dim_model_base is {base}; expected a number above 0")
        self.keys.set("logit_scale", source.integer("hidden_size") / base)

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def extra(self) -> Named:
        factors = long_factors(self.source.rope, self.source.integer("hidden_size") // self.source.heads)
        if factors is not None:
            yield "rope_factors_long.weight", Array.values(factors[0])
            yield "rope_factors_short.weight", Array.values(factors[1])
