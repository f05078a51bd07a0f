"""Models of program text: StarCoder, CodeShell, Refact."""

from __future__ import annotations

from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named, split_rows
from llamacpu.tools.convert.tokenizers.special import SpecialTokens

__all__ = ["CodeShell", "Refact", "Starcoder", "Starcoder2"]

_MULTIPLE = 256


class Starcoder(Family):
    """StarCoder and SantaCoder."""

    architecture = "starcoder"

    @property
    def key_value_heads(self) -> int:
        """The number of heads of keys and values."""
        return 1

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        width = source.integer("n_embd")
        keys.set("context_length", source.integer("n_positions"))
        keys.set("embedding_length", width)
        keys.set("feed_forward_length", 4 * width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.head_count_kv", self.key_value_heads)
        keys.set("attention.layer_norm_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")


class Starcoder2(Family):
    """StarCoder 2."""

    architecture = "starcoder2"


class CodeShell(Starcoder):
    """CodeShell."""

    architecture = "codeshell"

    @property
    def key_value_heads(self) -> int:
        return self.source.integer("num_query_groups")

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("rope.freq_base", 10000.0)
        self.keys.set("rope.scaling.type", "linear")
        self.keys.set("rope.scaling.factor", 1.0)


class Refact(Family):
    """Refact: one head of keys and values."""

    architecture = "refact"

    def set_vocabulary(self) -> None:
        super().set_vocabulary()
        special = SpecialTokens(self.folder, self.source.root, kinds=("eot",))
        special.template = None
        special.write(self.keys)

    @property
    def _width(self) -> int:
        inner = int(2 * 4 * self.source.integer("n_embd") / 3)
        return -(-inner // _MULTIPLE) * _MULTIPLE

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("context_length", source.integer("n_positions"))
        keys.set("embedding_length", source.integer("n_embd"))
        keys.set("feed_forward_length", self._width)
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.integer("n_head"))
        keys.set("attention.head_count_kv", 1)
        keys.set("attention.layer_norm_rms_epsilon", source.number("layer_norm_epsilon"))
        keys.add("general.file_type", self.file_type, "uint32")

    def converted(self, name: str, array: Array, layer: int) -> Named:
        size = self.source.integer("n_embd") // self.source.heads
        if name.endswith(".attn.kv.weight"):
            for part, rows in split_rows(array, {"k": size, "v": size}, name).items():
                yield f"blk.{layer}.attn_{part}.weight", rows
        elif name.endswith(".attn.q.weight"):
            yield f"blk.{layer}.attn_q.weight", array
        elif name.endswith(".mlp.gate_up_proj.weight"):
            for part, rows in split_rows(array, {"gate": self._width, "up": self._width}, name).items():
                yield f"blk.{layer}.ffn_{part}.weight", rows
        else:
            yield name, array
