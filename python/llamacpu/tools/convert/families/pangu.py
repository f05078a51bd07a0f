"""openPangu Embedded."""

from __future__ import annotations

from llamacpu.tools.convert.families.base import Family
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces

__all__ = ["Pangu"]


class Pangu(Family):
    """openPangu Embedded."""

    architecture = "pangu-embedded"

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)
        prefix = self.folder.config.get("add_prefix_space")
        if prefix is not None:
            self.keys.add("tokenizer.ggml.add_space_prefix", prefix, "bool")

    def set_parameters(self) -> None:
        super().set_parameters()
        size = self.source.head_size
        self.keys.set("vocab_size", self.config.get("vocab_size"))
        self.keys.set("rope.dimension_count", size)
        self.keys.set("attention.key_length", size)
        self.keys.set("attention.value_length", size)

    def renamed(self, name: str) -> str | None:
        if name == "lm_head.weight" and self.config.get("tie_word_embeddings"):
            return None
        return super().renamed(name)
