"""PLaMo 13B."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.tokenizers.pieces import set_any_pieces

__all__ = ["Plamo"]


class Plamo(Family):
    """PLaMo 13B: query head h belongs to key head h mod n, where others count the heads of a group in turn."""

    architecture = "plamo"
    names: ClassVar[Mapping[str, str]] = {"norm": "attn_norm"}
    shared: ClassVar[int] = 8
    """query heads for each key head, unless the configuration says it"""

    def set_vocabulary(self) -> None:
        set_any_pieces(self.folder, self.config, self.keys)

    @property
    def _groups(self) -> tuple[int, int]:
        """Query heads for each key head, and key heads (the configuration's num_key_value_heads is that of queries)."""
        each = self.config.get("n_shared_head", self.shared)
        heads = self.source.heads
        if not isinstance(each, int) or each <= 0 or heads % each:
            raise CheckpointError(f"config.json: {heads} heads cannot be shared by n_shared_head {each!r:.40}")
        return each, heads // each

    def set_parameters(self) -> None:
        keys, source = self.keys, self.source
        keys.set("context_length", 4096)  # no configuration says it
        keys.set("embedding_length", source.integer("hidden_size"))
        keys.set("feed_forward_length", source.integer("intermediate_size"))
        keys.set("block_count", self.layers)
        keys.set("attention.head_count", source.heads)
        keys.set("attention.head_count_kv", self._groups[1])
        keys.set("attention.layer_norm_rms_epsilon", source.number("rms_norm_eps"))
        keys.add("general.file_type", self.file_type, "uint32")

    def renamed(self, name: str) -> str | None:
        return super().renamed(name.replace("model.layers.layers.", "model.layers."))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        each, groups = self._groups
        if name.endswith(("self_attn.q_proj.weight", "self_attn.o_proj.weight")):
            rows, columns = array.shape
            size = (rows if "q_proj" in name else columns) // self.source.heads
            if "q_proj" in name:
                grouped: tuple[int, ...] = (each, groups, size, columns)
                axes: tuple[int, ...] = (1, 0, 2, 3)
            else:
                grouped, axes = (rows, each, groups, size), (0, 2, 1, 3)
            if math.prod(grouped) != math.prod(array.shape):
                raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; is config.json sound?")
            shape = array.shape
            array = array.whole(shape, lambda values: values.reshape(grouped).transpose(axes).reshape(shape))
        yield name, array
