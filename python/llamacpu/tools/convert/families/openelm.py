"""OpenELM."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named, split_rows
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces

__all__ = ["OpenElm"]


class OpenElm(Family):
    """OpenELM. Its checkpoints come without a tokenizer: Llama 2's tokenizer.model belongs into the folder."""

    architecture = "openelm"

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    def _per_layer(self, key: str) -> list[Any]:
        found = self.config.get(key)
        if not isinstance(found, list) or len(found) != self.layers:
            raise CheckpointError(f"config.json: {key} is {found!r:.60}; expected a number for each layer")
        return found

    def _widths(self) -> list[int]:
        divisor, width = self.source.integer("ffn_dim_divisor"), self.source.integer("model_dim")
        return [_divisible(float(each) * width, divisor) for each in self._per_layer("ffn_multipliers")]

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        size = source.integer("head_dim")
        keys.set("block_count", self.layers)
        keys.set("context_length", source.integer("max_context_length"))
        keys.set("embedding_length", source.integer("model_dim"))
        keys.set("feed_forward_length", self._widths())
        keys.set("attention.head_count", self._per_layer("num_query_heads"))
        keys.set("attention.head_count_kv", self._per_layer("num_kv_heads"))
        keys.set("rope.freq_base", source.number("rope_freq_constant"))
        keys.set("attention.layer_norm_rms_epsilon", 1e-6)
        keys.set("rope.dimension_count", size)
        keys.set("attention.key_length", size)
        keys.set("attention.value_length", size)
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(".ffn.proj_1.weight"):
            width = self._widths()[layer] if layer < self.layers else 0
            parts = split_rows(array, {"gate": width, "up": width}, name)
            yield f"blk.{layer}.ffn_gate.weight", parts["gate"]
            yield f"blk.{layer}.ffn_up.weight", parts["up"]
        else:
            yield name, array


def _divisible(value: float, divisor: int) -> int:
    """The multiple of the divisor next to the value, but not more than a tenth below it."""
    near = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * value else near
