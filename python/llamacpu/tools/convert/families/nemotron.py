"""Nemotron and Minitron."""

from __future__ import annotations

from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces

__all__ = ["Nemotron"]


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
