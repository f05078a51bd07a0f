"""Families that differ from the common form in few words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named, permuted
from llamacpu.tools.convert.rope import long_factors
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.folder import TokenizerFolder
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = [
    "Cohere2", "CommandR", "Exaone", "Exaone4", "Glm4", "Glm4Moe", "MiniCpm", "Nemotron", "Olmo2", "Orion", "SeedOss",
    "StableLm", "Starcoder2", "Xverse",
]  # fmt: skip

_FOUR_NORMS = {"post_attention_layernorm": "post_attention_norm"}


class SeedOss(Family):
    """Seed-OSS."""

    architecture = "seed_oss"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS


class Starcoder2(Family):
    """StarCoder 2."""

    architecture = "starcoder2"


class Olmo2(Family):
    """OLMo 2 and 3: norms follow the blocks."""

    architecture = "olmo2"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS

    def set_parameters(self) -> None:
        super().set_parameters()
        if "sliding_window" in self.config:
            self.keys.set("attention.sliding_window", self.config["sliding_window"])
            kinds = self.config.get("layer_types")
            windows = (
                [kind == "sliding_attention" for kind in kinds]
                if isinstance(kinds, list)
                else [(layer + 1) % 4 != 0 for layer in range(self.layers)]
            )
            self.keys.set("attention.sliding_window_pattern", windows)


class CommandR(Family):
    """Command R and Aya 23."""

    architecture = "command-r"

    def set_parameters(self) -> None:
        # The context of published models is in model_max_length.
        if "model_max_length" in self.config:
            self.config["max_position_embeddings"] = self.config["model_max_length"]
        super().set_parameters()
        self.keys.set("logit_scale", self.config.get("logit_scale"))
        self.keys.set("rope.scaling.type", "none")


class Cohere2(Family):
    """Command R7B and Command A."""

    architecture = "cohere2"

    def set_parameters(self) -> None:
        super().set_parameters()
        source = self.source
        self.keys.set("logit_scale", self.config.get("logit_scale"))
        self.keys.set("attention.sliding_window", self.config.get("sliding_window"))
        self.keys.set("vocab_size", self.config.get("vocab_size"))
        share = source.number("rotary_pct") if "rotary_pct" in self.config else 1.0
        self.keys.set("rope.dimension_count", int(share * (source.integer("hidden_size") // source.heads)))
        self.keys.set("rope.scaling.type", "none")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(".bias"):
            if array.read().any():
                raise CheckpointError(f"the tensor {name!r:.120} is not zero; the architecture has no biases")
            return
        yield from super().converted(name, array, layer)


class Glm4(Family):
    """GLM 4 (0414)."""

    architecture = "glm4"
    names: ClassVar[Mapping[str, str]] = {"post_self_attn_layernorm": "post_attention_norm"}

    def set_parameters(self) -> None:
        super().set_parameters()
        share = self.source.rope_number("partial_rotary_factor", 0.5)
        self.keys.set("rope.dimension_count", int(self.source.head_size * share))

    def set_vocabulary(self) -> None:
        special = SpecialTokens(self.folder, self.source.root, merges=True)
        ids = {token.text: id for id, token in self.folder.added.items()}
        for kind, text in self.special_texts():
            if text not in ids:
                raise CheckpointError(f"tokenizer.json: the token {text!r} of GLM models is missing")
            special.set(kind, ids[text])
        set_byte_pair(self.folder, self.config, self.keys, special)

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        """The kinds of special tokens and their texts, where the tokenizer does not name them."""
        end = "<|endoftext|>"
        return ("eos", end), ("eot", "<|user|>"), ("unk", end), ("bos", end)


class Glm4Moe(Glm4):
    """GLM 4.5 and 4.6."""

    architecture = "glm4moe"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS

    def __init__(self, source: Source, folder: TokenizerFolder, file_type: int) -> None:
        super().__init__(source, folder, file_type)
        further = self.config.get("num_nextn_predict_layers", 0)
        self.layers: int = source.layers + (further if isinstance(further, int) and 0 <= further < 100 else 0)

    def special_texts(self) -> tuple[tuple[str, str], ...]:
        return ("bos", "[gMASK]"), ("eot", "<|user|>"), ("unk", "<|endoftext|>"), ("eom", "<|observation|>")

    def set_parameters(self) -> None:
        super().set_parameters()
        for key, name in (
            ("expert_count", "n_routed_experts"),
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_count", "n_shared_experts"),
            ("leading_dense_block_count", "first_k_dense_replace"),
        ):
            if self.config.get(name) is not None:
                self.keys.set(key, self.config[name])
        self.keys.set("expert_gating_func", 2)
        for key, name in (
            ("expert_weights_scale", "routed_scaling_factor"),
            ("expert_weights_norm", "norm_topk_prob"),
            ("nextn_predict_layers", "num_nextn_predict_layers"),
        ):
            if self.config.get(name) is not None:
                self.keys.set(key, self.config[name])

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "mlp.experts" in name:
            parts = ("down_proj", "gate_proj", "up_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.source.integer("n_routed_experts"))
        else:
            yield from super().converted(name, array, layer)


class Nemotron(Family):
    """Nemotron and Minitron."""

    architecture = "nemotron"

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)
        self.keys.add("tokenizer.ggml.padding_token_id", 0, "uint32")
        self.keys.add("tokenizer.ggml.unknown_token_id", 1, "uint32")

    def set_parameters(self) -> None:
        super().set_parameters()
        source, keys = self.source, self.keys
        keys.set("vocab_size", self.config.get("vocab_size"))
        norm = source.number("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
        keys.set("attention.layer_norm_epsilon", norm)
        rotated = int(source.rope_number("partial_rotary_factor") * source.integer("hidden_size", "n_embd"))
        keys.set("rope.dimension_count", rotated // source.heads)
        factor = self.config.get("factor") or source.rope.get("factor")
        keys.set("rope.scaling.type", "none" if factor is None else "linear")
        if factor is not None:
            keys.set("rope.scaling.factor", factor)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        # Norms are stored less one.
        yield name, array.each(lambda values: values + 1) if name.endswith("norm.weight") else array


class StableLm(Family):
    """StableLM 2 and StableLM 3B."""

    architecture = "stablelm"

    def set_parameters(self) -> None:
        source, keys, config = self.source, self.keys, self.config
        keys.set("context_length", config.get("max_position_embeddings"))
        keys.set("embedding_length", config.get("hidden_size"))
        keys.set("block_count", self.layers)
        keys.set("feed_forward_length", config.get("intermediate_size"))
        share = source.rope_number("partial_rotary_factor")
        keys.set("rope.dimension_count", int(share * (source.integer("hidden_size") // source.heads)))
        keys.set("attention.head_count", source.heads)
        keys.set("attention.head_count_kv", source.key_value_heads)
        keys.set("use_parallel_residual", config.get("use_parallel_residual", True))
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_eps", "norm_eps"))
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if ".norms." not in name:
            yield name, array
            return
        stem, _, number = name.removesuffix(".weight").partition(".norms.")
        count = self.source.heads if stem.endswith("q_layernorm") else self.source.key_value_heads
        found = self._gathered.setdefault((layer, stem), {})
        found[number] = array
        if len(found) == count:
            del self._gathered[layer, stem]
            if set(found) != {str(head) for head in range(count)}:
                raise CheckpointError(f"the norms {stem!r:.120} of heads are incomplete")
            yield f"{stem}.weight", Array.stacked([found[str(head)] for head in range(count)], stem)


class Exaone(Family):
    """EXAONE 3 and 3.5."""

    architecture = "exaone"

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.config.get("activation_function", "silu") != "silu":
            raise CheckpointError(
                f"config.json: activation_function is {self.config['activation_function']!r:.40}; expected silu"
            )
        share = self.source.rope_number("partial_rotary_factor", 1.0)
        self.keys.set("rope.dimension_count", int(share * (self.source.integer("hidden_size") // self.source.heads)))


class Exaone4(Family):
    """EXAONE 4."""

    architecture = "exaone4"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS

    def set_parameters(self) -> None:
        super().set_parameters()
        config = self.config
        self.keys.set("vocab_size", config.get("vocab_size"))
        if config.get("sliding_window") is None:
            return
        self.keys.set("attention.sliding_window", config["sliding_window"])
        kinds, pattern = config.get("layer_types"), config.get("sliding_window_pattern")
        if isinstance(kinds, list):
            self.keys.set("attention.sliding_window_pattern", [kind == "sliding_attention" for kind in kinds])
        elif isinstance(pattern, str) and pattern:
            windows = [pattern[layer % len(pattern)] == "L" for layer in range(self.layers)]
            self.keys.set("attention.sliding_window_pattern", windows)
        elif isinstance(pattern, int) and pattern > 0:
            windows = [(layer + 1) % pattern != 0 for layer in range(self.layers)]
            self.keys.set("attention.sliding_window_pattern", windows)


class Orion(Family):
    """Orion."""

    architecture = "orion"

    def set_parameters(self) -> None:
        source, keys = self.source, self.keys
        keys.add("general.file_type", self.file_type, "uint32")
        keys.set("tensor_data_layout", "Meta AI original pth")
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


class Xverse(Family):
    """XVERSE."""

    architecture = "xverse"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("tensor_data_layout", "Meta AI original pth")
        self.keys.set("rope.dimension_count", self.source.integer("hidden_size") // self.source.heads)

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        heads, key_heads = self.source.heads, self.source.key_value_heads
        if name.endswith("q_proj.weight"):
            array = permuted(array, heads, name)
        if name.endswith("k_proj.weight"):
            array = permuted(array, heads // key_heads if heads != key_heads else heads, name)
        yield name, array


class MiniCpm(Family):
    """MiniCPM 1 and 4."""

    architecture = "minicpm"
    permutes = True

    def set_parameters(self) -> None:
        super().set_parameters()
        source = self.source
        self.keys.set("embedding_scale", float(source.number("scale_emb")))
        self.keys.set("residual_scale", source.number("scale_depth") / source.integer("num_hidden_layers") ** 0.5)
        self.keys.set("logit_scale", source.integer("hidden_size") / source.number("dim_model_base"))

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def extra(self) -> Named:
        factors = long_factors(self.source.rope, self.source.integer("hidden_size") // self.source.heads)
        if factors is not None:
            yield "rope_factors_long.weight", Array.values(factors[0])
            yield "rope_factors_short.weight", Array.values(factors[1])
