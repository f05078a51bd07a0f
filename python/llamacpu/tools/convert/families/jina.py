"""Jina Embeddings 2 and 3."""

from __future__ import annotations

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Named
from llamacpu.tools.convert.families.encoders import Bert, XlmRoberta
from llamacpu.tools.convert.tokenizers.byte_pair import set_byte_pair

__all__ = ["JinaBert2", "JinaBert3"]


class JinaBert2(Bert):
    """Jina Embeddings 2, also for code."""

    architecture = "jina-bert-v2"

    def set_vocabulary(self) -> None:
        if self.folder.kind == "WordPiece":
            super().set_vocabulary()
            return
        rule = self.folder.json.get("pre_tokenizer")
        if isinstance(rule, dict) and rule.get("type") == "Whitespace":
            raise CheckpointError(
                "tokenizer.json: vocabularies of whole words (pre_tokenizer Whitespace) do not run here"
            )
        set_byte_pair(self.folder, self.config, self.keys)
        self.keys.add("tokenizer.ggml.token_type_count", 2, "uint32")


class JinaBert3(XlmRoberta):
    """Jina Embeddings 3 without its adapters for tasks."""

    architecture = "jina-bert-v3"

    def renamed(self, name: str) -> str | None:
        if ".parametrizations." in name:
            name = name.replace(".parametrizations.", ".").removesuffix(".original")
        return super().renamed(name)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if not name.endswith((".lora_A", ".lora_B")):
            yield from super().converted(name, array, layer)
