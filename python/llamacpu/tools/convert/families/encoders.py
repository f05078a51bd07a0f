"""Encoders: BERT, RoBERTa, XLM-RoBERTa, DistilBERT, Nomic's, ModernBERT and EuroBERT."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.pooling import set_pooling
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.encoders import set_unigrams, set_word_pieces

__all__ = ["Bert", "DistilBert", "EuroBert", "ModernBert", "NomicBert", "NomicBertMoe", "Roberta", "XlmRoberta"]

_MASKED_HEADS = ("cls.predictions", "cls.seq_relationship", "lm_head.", "predictions.", "decoder.")


class Bert(Family):
    """BERT: no causal mask, a classifier's head if the checkpoint has one."""

    architecture = "bert"
    prefix: ClassVar[str] = "bert."
    drops: ClassVar[tuple[str, ...]] = ("embeddings.position_ids", "pooler.dense.weight", "pooler.dense.bias")

    @property
    def labels(self) -> dict[str, str]:
        """The classes of a classifier; {} for those that transformers makes up."""
        found = self.config.get("id2label")
        if not isinstance(found, dict) or (len(found) == 2 and found.get("0") == "LABEL_0"):
            return {}
        return {str(key): str(label) for key, label in found.items()}

    @property
    def offset(self) -> int:
        """Rows at the beginning of the position embedding that no position uses."""
        return 0

    def set_parameters(self) -> None:
        positions = self.config.get("max_position_embeddings")
        if self.offset and isinstance(positions, int):
            self.config["max_position_embeddings"] = positions - self.offset
        super().set_parameters()
        self.keys.set("attention.causal", False)
        set_pooling(self.source, self.keys)
        if self.labels:
            ordered = [label for _, label in sorted(self.labels.items(), key=lambda item: int(item[0]))]
            self.keys.add(f"{self.architecture}.classifier.output_labels", ordered, "string")

    def set_vocabulary(self) -> None:
        set_word_pieces(self.folder, self.config, self.keys)

    def renamed(self, name: str) -> str | None:
        name = name.removeprefix(self.prefix)
        if name.endswith(".gamma"):
            name = name.removesuffix(".gamma") + ".weight"
        if name.endswith(".beta"):
            name = name.removesuffix(".beta") + ".bias"
        return None if name.startswith(_MASKED_HEADS) else super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if self.labels and name in ("classifier.weight", "classifier.bias"):
            name = name.replace("classifier", "classifier.out_proj")
        if name == "embeddings.position_embeddings.weight" and self.offset:
            array = array.rows(self.offset, array.shape[0])
        yield name, array


class DistilBert(Bert):
    """DistilBERT."""

    prefix = "distilbert."

    def set_parameters(self) -> None:
        self.keys.set("attention.layer_norm_epsilon", 1e-12)
        super().set_parameters()

    def renamed(self, name: str) -> str | None:
        return None if name.startswith("vocab_") else super().renamed(name)


class Roberta(Bert):
    """RoBERTa: positions begin after the id of the padding token."""

    prefix = "roberta."

    @property
    def offset(self) -> int:
        pad = self.config.get("pad_token_id")
        return pad + 1 if isinstance(pad, int) and pad >= 0 else 0

    def set_vocabulary(self) -> None:
        set_byte_pair(self.folder, self.config, self.keys)
        self.keys.add("tokenizer.ggml.token_type_count", self.config.get("type_vocab_size", 1), "uint32")


class XlmRoberta(Roberta):
    """XLM-RoBERTa, BGE-M3 and multilingual E5."""

    def set_vocabulary(self) -> None:
        set_unigrams(self.folder, self.config, self.keys)


class NomicBert(Bert):
    """Nomic Embed 1 and 1.5."""

    architecture = "nomic-bert"
    has_experts: ClassVar[bool] = False

    def set_parameters(self) -> None:
        config = self.config
        positions, trained = config.get("n_positions"), config.get("max_trained_positions", 2048)
        lengths: dict[Any, int] = {(8192, 2048): 2048, (2048, 2048): 512}
        if not isinstance(positions, int) or not isinstance(trained, int) or (positions, trained) not in lengths:
            raise CheckpointError(
                f"config.json: n_positions {positions!r:.30} with max_trained_positions {trained!r:.30} is not known"
            )
        config["n_positions"] = lengths[positions, trained]
        expected = {
            "activation_function": "gelu" if self.has_experts else "swiglu", "causal": False, "prenorm": False,
            "qkv_proj_bias": self.has_experts, "mlp_fc1_bias": self.has_experts, "mlp_fc2_bias": self.has_experts,
            "rotary_emb_fraction": 1.0, "rotary_emb_interleaved": False,
        }  # fmt: skip
        for key, value in expected.items():
            if config.get(key) != value:
                raise CheckpointError(f"config.json: {key} is {config.get(key)!r:.40}; only {value!r} is supported")
        super().set_parameters()
        if self.has_experts:
            self.keys.set("moe_every_n_layers", config.get("moe_every_n_layers"))
            self.keys.set("expert_used_count", config.get("moe_top_k"))

    def set_vocabulary(self) -> None:
        if self.folder.kind == "Unigram":
            set_unigrams(self.folder, self.config, self.keys)
        else:
            set_word_pieces(self.folder, self.config, self.keys)

    def renamed(self, name: str) -> str | None:
        return None if "mlp.experts.bias" in name else super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if "mlp.experts.mlp.w" in name:
            shape = (self.number_of_experts(), self.source.integer("n_inner"), self.source.integer("n_embd"))
            array = array.reshaped(shape)
            yield f"{name}.weight", array.transposed() if name.endswith("w2") else array
        else:
            yield from super().converted(name, array, layer)


class NomicBertMoe(NomicBert):
    """Nomic Embed 2."""

    architecture = "nomic-bert-moe"
    has_experts = True


class ModernBert(Bert):
    """ModernBERT and its relatives."""

    architecture = "modern-bert"
    prefix = "model."
    names: ClassVar[Mapping[str, str]] = {"attn_norm": "attn_norm", "mlp_norm": "ffn_norm"}

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.source.find("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon") is None:
            self.keys.set("attention.layer_norm_epsilon", self.config.get("norm_eps"))  # the norms are layer norms
        self.keys.set("attention.sliding_window", self.config.get("local_attention"))
        pattern = self.config.get("global_attn_every_n_layers")
        if pattern is not None:
            self.keys.set("attention.sliding_window_pattern", pattern)
        self.keys.set("rope.scaling.type", "none")
        self.keys.set("vocab_size", self.config.get("vocab_size"))
        if self.config.get("hidden_activation"):
            self.keys.set("hidden_activation", self.config["hidden_activation"])

    def set_vocabulary(self) -> None:
        for kind in ("bos", "eos", "sep"):
            self.keys.add(f"tokenizer.ggml.add_{kind}_token", True, "bool")
        set_byte_pair(self.folder, self.config, self.keys)


class EuroBert(Family):
    """EuroBERT."""

    architecture = "eurobert"

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("attention.causal", False)
        self.keys.set("rope.scaling.type", "none")
        set_pooling(self.source, self.keys)

    def set_vocabulary(self) -> None:
        self.keys.add("tokenizer.ggml.add_bos_token", False, "bool")
        set_byte_pair(self.folder, self.config, self.keys)

    def renamed(self, name: str) -> str | None:
        return super().renamed(name.removeprefix("model."))
