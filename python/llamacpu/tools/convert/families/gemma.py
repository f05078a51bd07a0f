"""Gemma 1 to 3 and EmbeddingGemma: weights of norms are stored less one, and the output is the embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.pooling import set_pooling
from llamacpu.tools.convert.source import Source
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.pieces import (
    has_pieces,
    is_merged_pieces,
    piece_vocabulary,
    set_any_pieces,
)
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["EmbeddingGemma", "Gemma", "Gemma2", "Gemma3"]

_FOUR_NORMS = {"post_attention_layernorm": "post_attention_norm"}
_END_OF_TURN = 107


class Gemma(Family):
    """Gemma and CodeGemma."""

    architecture = "gemma"
    drops: ClassVar[tuple[str, ...]] = ("lm_head.weight",)

    def set_parameters(self) -> None:
        for key, name in (
            ("context_length", "max_position_embeddings"),
            ("embedding_length", "hidden_size"),
            ("block_count", "num_hidden_layers"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
            ("attention.key_length", "head_dim"),
            ("attention.value_length", "head_dim"),
        ):
            self.keys.set(key, self.config.get(name))
        self.keys.add("general.file_type", self.file_type, "uint32")

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)
        if self.architecture == "gemma":
            special = SpecialTokens(self.folder, self.source.root, kinds=("eot",))
            special.template = None
            special.set("eot", _END_OF_TURN)
            special.write(self.keys)
        self.keys.add("tokenizer.ggml.add_space_prefix", False, "bool")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        yield name, array.each(lambda values: values + 1) if name.endswith("norm.weight") else array


def check_scale(source: Source, largest: int) -> None:
    """Refuse a scale of queries that no key says: runtimes take the head size, in the largest model width / heads."""
    width = source.integer("hidden_size") // source.heads
    expected = width if source.layers == largest else source.integer("head_dim")
    given = source.config.get("query_pre_attn_scalar", expected)
    if given != expected:
        raise CheckpointError(
            f"config.json: query_pre_attn_scalar is {given!r:.40}; a GGUF file cannot say it, and {expected} is used"
        )


class Gemma2(Gemma):
    """Gemma 2: four norms in a layer, windows, soft caps."""

    architecture = "gemma2"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS

    def set_parameters(self) -> None:
        super().set_parameters()
        check_scale(self.source, largest=46)
        self.keys.set("attn_logit_softcapping", self.config.get("attn_logit_softcapping"))
        self.keys.set("final_logit_softcapping", self.config.get("final_logit_softcapping"))
        self.keys.set("attention.sliding_window", self.config.get("sliding_window"))


class Gemma3(Gemma):
    """The text model of Gemma 3."""

    architecture = "gemma3"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS
    drops: ClassVar[tuple[str, ...]] = ()

    def check_scale(self) -> None:
        """Refuse a scale of queries that no key says."""
        check_scale(self.source, largest=62)

    def set_parameters(self) -> None:
        Family.set_parameters(self)
        config = self.config
        self.check_scale()
        self.keys.set("context_length", config.get("max_position_embeddings", 131072))
        self.keys.set("attention.head_count", config.get("num_attention_heads", 8))
        self.keys.set("attention.layer_norm_rms_epsilon", config.get("rms_norm_eps", 1e-6))
        self.keys.set("attention.key_length", config.get("head_dim", 256))
        self.keys.set("attention.value_length", config.get("head_dim", 256))
        self.keys.set("rope.freq_base", self.source.global_rope.get("rope_theta", 1_000_000.0))
        if config.get("attn_logit_softcapping") is not None:
            raise CheckpointError("config.json: attn_logit_softcapping is set, which Gemma 3 does not have")
        if config.get("final_logit_softcapping"):
            self.keys.set("final_logit_softcapping", config["final_logit_softcapping"])
        if config.get("sliding_window_pattern") != 1:
            self.keys.set("attention.sliding_window", config.get("sliding_window"))
        self.keys.set("attention.head_count_kv", config.get("num_key_value_heads", 4))

    def set_vocabulary(self) -> None:
        if has_pieces(self.folder) or is_merged_pieces(self.folder):
            set_any_pieces(self.folder, self.config, self.keys)
            self.keys.add("tokenizer.ggml.add_space_prefix", False, "bool")
        else:
            set_byte_pair(self.folder, self.config, self.keys)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "embed_tokens.weight" in name:
            array = self.with_tokens(array)
        yield from super().converted(name, array, layer)

    def with_tokens(self, array: Array) -> Array:
        """The embedding without the rows that fill it up and have no token."""
        rows = self._tokens()
        return array.rows(0, rows) if rows < array.shape[0] else array

    def _tokens(self) -> int:
        if has_pieces(self.folder):
            return len(piece_vocabulary(self.folder, self.config.get("vocab_size")).tokens)
        vocabulary = self.folder.model.get("vocab")
        return len(vocabulary) + len(self.folder.listed) if vocabulary else self.source.integer("vocab_size")


class EmbeddingGemma(Gemma3):
    """EmbeddingGemma, an encoder."""

    architecture = "gemma-embedding"

    def set_parameters(self) -> None:
        super().set_parameters()
        # As config.json has it: the class of transformers changes the number.
        self.keys.set("attention.sliding_window", self.source.root.get("sliding_window"))
        set_pooling(self.source, self.keys)
