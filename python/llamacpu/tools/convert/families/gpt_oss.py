"""gpt-oss: experts in MXFP4, which are rearranged and stay as they are, or in 16 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError
from llamacpu.tools.convert.arrays import Array
from llamacpu.tools.convert.families.base import Family, Named
from llamacpu.tools.convert.formats import mxfp4_blocks

__all__ = ["GptOss"]

_FOUR_NORMS = {"post_attention_layernorm": "post_attention_norm"}


class GptOss(Family):
    """gpt-oss 20b and 120b."""

    architecture = "gpt-oss"
    names: ClassVar[Mapping[str, str]] = _FOUR_NORMS

    def renamed(self, name: str) -> str | None:
        return super().renamed(f"{name}.weight" if name.endswith("sinks") else name)

    def set_parameters(self) -> None:
        super().set_parameters()
        self.keys.set("attention.sliding_window", self.config.get("sliding_window"))
        self.keys.set("expert_feed_forward_length", self.config.get("intermediate_size"))

    def extra(self) -> Named:
        tensors = dict(self.source.tensors())
        for name, blocks in tensors.items():
            if not name.endswith("_proj_blocks"):
                continue
            scales = tensors.get(name.replace("_blocks", "_scales"))
            stem = name.replace("language_model.", "").removesuffix("_blocks")
            if scales is None or len(blocks.shape) != 4 or blocks.shape[3] != 16 or scales.shape != blocks.shape[:3]:
                raise CheckpointError(f"the tensor {name!r:.120} and its scales do not have the shapes of MXFP4")
            if stem.endswith("down_proj"):
                yield f"blk.{_layer(name)}.ffn_down_exps.weight", _packed(blocks, scales, slice(None))
            else:
                yield f"blk.{_layer(name)}.ffn_gate_exps.weight", _packed(blocks, scales, slice(0, None, 2))
                yield f"blk.{_layer(name)}.ffn_up_exps.weight", _packed(blocks, scales, slice(1, None, 2))

    def converted(self, name: str, array: Array, layer: int) -> Named:
        if name.endswith(("_proj_blocks", "_proj_scales")):
            return
        if "experts.gate_up_proj" in name:
            if name.endswith("_bias"):
                yield from _alternating(name.replace("gate_up_proj_bias", "{}_proj.bias"), array, -1)
            else:
                yield from _alternating(name.replace("gate_up_proj", "{}_proj.weight"), array.transposed(), -2)
        elif "experts.down_proj" in name:
            if name.endswith("_bias"):
                yield name.replace("down_proj_bias", "down_proj.bias"), array
            else:
                yield name.replace("down_proj", "down_proj.weight"), array.transposed()
        else:
            yield from super().converted(name, array, layer)


def _layer(name: str) -> int:
    return int(next(part for part in name.split(".") if part.isdecimal()))


def _packed(blocks: LazyTensor, scales: LazyTensor, rows: slice) -> Array:
    """Experts as MXFP4 blocks of a file."""
    experts, count, groups, _ = blocks.shape
    shape = (experts, len(range(*rows.indices(count))), groups * 32)

    def pieces() -> Iterator[NDArray[np.uint8]]:
        for expert in range(experts):
            codes = blocks.raw_rows(expert, expert + 1)[0, rows].view(np.uint8)
            yield mxfp4_blocks(codes, scales.raw_rows(expert, expert + 1)[0, rows].view(np.uint8))

    return Array.stored(shape, "MXFP4", pieces)


def _alternating(name: str, array: Array, axis: int) -> Named:
    """Gates are the even rows, ups the odd ones."""
    if array.shape[axis] % 2:
        raise CheckpointError(f"the tensor {name!r:.120} has the shape {array.shape}; expected as many gates as ups")
    shape = list(array.shape)
    shape[axis] //= 2

    def every_second(values: NDArray[np.float32], start: int) -> NDArray[np.float32]:
        cut: list[Any] = [slice(None)] * values.ndim
        cut[axis] = slice(start, None, 2)
        result: NDArray[np.float32] = values[tuple(cut)]
        return result

    yield name.format("gate"), array.whole(shape, lambda values: every_second(values, 0))
    yield name.format("up"), array.whole(shape, lambda values: every_second(values, 1))
