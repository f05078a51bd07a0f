"""Qwen 1 to 3, dense and with experts, and dots.llm1 and OLMoE, whose experts are stored in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.pooling import set_pooling
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair
from llamacpu.tools.convert.tokenizers.pieces import has_pieces, set_pieces
from llamacpu.tools.convert.tokenizers.tiktoken_files import set_coded_ranks

__all__ = ["Dots1", "Olmoe", "Qwen", "Qwen2", "Qwen2Moe", "Qwen3", "Qwen3Moe"]

_RERANK_TEMPLATE = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


class Qwen2(Family):
    """Qwen 2 and 2.5."""

    architecture = "qwen2"

    def set_parameters(self) -> None:
        super().set_parameters()
        set_pooling(self.source, self.keys)

    def set_vocabulary(self) -> None:
        if has_pieces(self.folder):
            set_pieces(self.folder, self.config, self.keys)
        else:
            set_byte_pair(self.folder, self.config, self.keys)

    def renamed(self, name: str) -> str | None:
        if self.source.architecture in ("Qwen2Model", "Qwen3Model") and not name.startswith(("model.", "lm_head.")):
            name = f"model.{name}"
        return super().renamed(name)


class Qwen3(Qwen2):
    """Qwen 3, and its rerankers, whose output is two rows: for "yes" and for "no"."""

    architecture = "qwen3"

    @property
    def is_reranker(self) -> bool:
        """Whether the model judges documents."""
        names = (self.source.checkpoint.folder.resolve().name, str(self.config.get("_name_or_path", "")))
        return any("qwen3-reranker" in name.lower() for name in names) or (
            "sequenceclassification" in self.source.architecture.lower()
        )

    def set_parameters(self) -> None:
        super().set_parameters()
        if self.is_reranker:
            self.keys.set("pooling_type", 4)
            self.keys.add("qwen3.classifier.output_labels", ["yes", "no"], "string")
            self.keys.add("tokenizer.chat_template.rerank", _RERANK_TEMPLATE, "string")
            self.keys.add("tokenizer.chat_templates", ["rerank"], "string")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        tied = bool(self.config.get("tie_word_embeddings"))
        if self.is_reranker and ("embed_tokens" if tied else "lm_head") in name:
            ids = [self._id(text) for text in ("yes", "no")]
            yield "cls.output.weight", array.whole((2, array.shape[1]), lambda a: a[ids])
            if not tied:
                return
        yield from super().converted(name, array, layer)

    def _id(self, text: str) -> int:
        id = self.folder.model.get("vocab", {}).get(text)
        if not isinstance(id, int):
            raise CheckpointError(f"tokenizer.json: a reranker of Qwen 3 needs the token {text!r}, and there is none")
        return id


class Qwen2Moe(Family):
    """Qwen 1.5 and 2 with experts."""

    architecture = "qwen2moe"

    def set_parameters(self) -> None:
        super().set_parameters()
        for key, name in (
            ("expert_feed_forward_length", "moe_intermediate_size"),
            ("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
        ):
            if self.config.get(name) is not None:
                self.keys.set(key, self.config[name])

    def converted(self, name: str, array: Array, layer: int) -> Named:
        stem = name.removesuffix(".weight")
        if stem.endswith("mlp.experts.down_proj"):
            yield f"{stem}.weight", array
        elif stem.endswith("mlp.experts.gate_up_proj"):
            yield from self._split(stem.removesuffix(".gate_up_proj"), array)
        elif "experts" in name and "shared_expert" not in name:
            parts = ("down_proj", "gate_proj", "up_proj")
            yield from self.stacked_experts(name, array, layer, parts, self.number_of_experts())
        else:
            yield from super().converted(name, array, layer)

    def _split(self, stem: str, array: Array) -> Named:
        if len(array.shape) != 3 or array.shape[1] % 2:
            raise CheckpointError(
                f"the tensor {stem!r:.120}.gate_up_proj has the shape {array.shape}; expected two halves"
            )
        half = array.shape[1] // 2
        shape = (array.shape[0], half, array.shape[2])
        yield f"{stem}.gate_proj.weight", array.whole(shape, lambda a: a[:, :half])
        yield f"{stem}.up_proj.weight", array.whole(shape, lambda a: a[:, half:])


class Qwen3Moe(Qwen2Moe):
    """Qwen 3 with experts."""

    architecture = "qwen3moe"


class Olmoe(Qwen2Moe):
    """OLMoE."""

    architecture = "olmoe"

    def set_parameters(self) -> None:
        Family.set_parameters(self)
        self.keys.set("attention.layer_norm_rms_epsilon", 1e-5)


class Dots1(Qwen2Moe):
    """dots.llm1."""

    architecture = "dots1"

    def set_parameters(self) -> None:
        self.config["num_experts"] = self.config.get("n_routed_experts")
        super().set_parameters()
        self.keys.set("leading_dense_block_count", self.config.get("first_k_dense_replace"))
        self.keys.set("expert_shared_count", self.config.get("n_shared_experts"))
        self.keys.set("expert_weights_scale", self.config.get("routed_scaling_factor"))
        self.keys.set("expert_weights_norm", self.config.get("norm_topk_prob"))

    def number_of_experts(self) -> int:
        return self.source.integer("n_routed_experts")


class Qwen(Family):
    """The first Qwen."""

    architecture = "qwen"
    names: ClassVar[Mapping[str, str]] = {"mlp.w1": "ffn_up", "mlp.w2": "ffn_gate"}

    def set_parameters(self) -> None:
        super().set_parameters()
        # Its norms are RMS norms, which no runtime finds under the name that the configuration has for the number.
        self.keys.set("attention.layer_norm_rms_epsilon", self.source.number("rms_norm_eps", "layer_norm_epsilon"))

    def set_vocabulary(self) -> None:
        set_coded_ranks(self.folder, self.config, self.keys, "qwen")
