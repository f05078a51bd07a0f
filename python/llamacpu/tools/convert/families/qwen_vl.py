"""The language models of Qwen 2 VL, 2.5 VL and 3 VL, dense and with experts."""

from __future__ import annotations

import numpy as np

from llamacpu.errors import CheckpointError
from llamacpu.locks import cached_property
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.families.qwen import Qwen2, Qwen3, Qwen3Moe

__all__ = ["Qwen2Vl", "Qwen3Vl", "Qwen3VlMoe"]


class Qwen2Vl(Qwen2):
    """Qwen2-VL and Qwen2.5-VL without their vision encoders."""

    architecture = "qwen2vl"


class Qwen3Vl(Qwen3):
    """Qwen3-VL without its vision encoder."""

    architecture = "qwen3vl"

    def set_parameters(self) -> None:
        super().set_parameters()
        _set_picture_layers(self)


class Qwen3VlMoe(Qwen3Moe):
    """Qwen3-VL with experts, whose matrices published checkpoints store with inputs for rows."""

    architecture = "qwen3vlmoe"

    def set_parameters(self) -> None:
        super().set_parameters()
        _set_picture_layers(self)

    def converted(self, name: str, array: Array, layer: int) -> Named:
        size = self._size_of(name)
        if size is None:
            yield from super().converted(name, array, layer)
            return
        rows, columns = size
        stored = (rows, columns) if self._has_outputs_for_rows else (columns, rows)
        if len(array.shape) != 3 or array.shape[1:] != stored:
            raise CheckpointError(
                f"the tensor {name!r:.120} has the shape {array.shape}; expected {stored[0]} x {stored[1]} for each "
                "expert: is config.json sound?"
            )
        if not self._has_outputs_for_rows:
            turned = (array.shape[0], rows, columns)
            array = array.whole(turned, lambda values: np.ascontiguousarray(values.swapaxes(1, 2)))
        yield from super().converted(name.removesuffix(".weight"), array, layer)

    def _size_of(self, name: str) -> tuple[int, int] | None:
        """Outputs and inputs of the matrices of experts in a tensor; None for another tensor."""
        stem = name.removesuffix(".weight")
        if not stem.endswith(("mlp.experts.down_proj", "mlp.experts.gate_up_proj")):
            return None
        width, inner = self.source.integer("hidden_size"), self.source.integer("moe_intermediate_size")
        return (width, inner) if stem.endswith("down_proj") else (2 * inner, width)

    @cached_property
    def _has_outputs_for_rows(self) -> bool:
        """Whether they are stored as elsewhere, as newer versions of transformers do it: some shape is only that."""
        found = self.source.checkpoint.tensors.items()
        sizes = ((tensor.shape[1:], self._size_of(name)) for name, tensor in found)
        return any(shape == size != size[::-1] for shape, size in sizes if size is not None)


def _set_picture_layers(family: Family) -> None:
    """Set how many layers are followed by parts of the rows of pictures."""
    vision = family.source.root.get("vision_config")
    layers = vision.get("deepstack_visual_indexes", []) if isinstance(vision, dict) else []
    if not isinstance(layers, list):
        raise CheckpointError(f"config.json: deepstack_visual_indexes is {layers!r:.60}; expected a list of layers")
    family.keys.set("n_deepstack_layers", len(layers))
