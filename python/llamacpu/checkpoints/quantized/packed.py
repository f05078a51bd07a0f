"""Weights that compressed-tensors calls "pack-quantized": integers of a few bits in the words of each row.

W[o, i] = scale[o, g(i)] · (q[o, i] - zero[o, g(i)]); without zero points, zero is half of the range.
Layout: https://github.com/vllm-project/compressed-tensors (compressors/quantized_compressors/pack_quantized.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.quantized.computed import ComputedTensor, Rows, fields
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["PackedTensor"]


class PackedTensor(ComputedTensor):
    """The matrix `name` of `name`_packed, `name`_scale, `name`_shape, and _zero_point and _g_idx if they are there."""

    def __init__(self, name: str, tensors: Mapping[str, LazyTensor], bits: int, size: int | None) -> None:
        missing = [part for part in ("_scale", "_shape") if name + part not in tensors]
        if missing:
            raise CheckpointError(f"{name}{missing[0]} is missing in the checkpoint, but {name}_packed is there")
        self.words: LazyTensor = tensors[f"{name}_packed"]
        self.scales: LazyTensor = tensors[f"{name}_scale"]
        self.zeros: LazyTensor | None = tensors.get(f"{name}_zero_point")
        self.index: LazyTensor | None = tensors.get(f"{name}_g_idx")
        stated = tensors[f"{name}_shape"]
        shape = tuple(int(length) for length in stated.read_raw()) if stated.shape == (2,) else ()
        if len(shape) != 2 or min(shape) < 1 or self.words.dtype not in ("I32", "U32"):
            raise CheckpointError(f"{name}: _shape and _packed do not describe a matrix")
        super().__init__(name, shape)
        outputs, inputs = shape
        groups = self.scales.shape[-1] if self.scales.shape else 0
        per_word = 32 // bits
        self.bits: int = bits
        self.group_size: int = inputs if size is None else size
        fits = (
            self.words.shape == (outputs, -(-inputs // per_word))
            and self.scales.shape == (outputs, groups)
            and (self.index is None or self.index.shape == (inputs,))
            and self.group_size > 0
            and groups == -(-inputs // self.group_size)
            and (self.zeros is None or self.zeros.shape == (-(-outputs // per_word), groups))
        )
        if not fits:
            raise CheckpointError(
                f"{name}: _packed {self.words.shape} and _scale {self.scales.shape} do not belong to a matrix {shape} "
                f"of {bits} bits in groups of {self.group_size}"
            )

    def load(self) -> Rows:
        group = np.arange(self.shape[1]) // self.group_size
        if self.index is not None:
            group = self.index.read_raw().astype(np.int64)
            if not 0 <= group.min() <= group.max() < self.scales.shape[1]:
                raise CheckpointError(f"{self.name}: _g_idx names a group beyond the {self.scales.shape[1]} there are")
        zeros = np.full(self.scales.shape, 1 << self.bits - 1, np.int16)
        if self.zeros is not None:
            unpacked = fields(self.zeros.read_raw(), self.bits)
            zeros = unpacked.swapaxes(1, 2).reshape(-1, self.scales.shape[1])[: self.shape[0]].astype(np.int16)

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            words = self.words.raw_rows(start, stop)
            quants = fields(words, self.bits).reshape(stop - start, words.shape[1] * 32 // self.bits)[
                :, : self.shape[1]
            ]
            steps = quants - zeros[start:stop, group]
            scaled: NDArray[np.float32] = self.scales.rows(start, stop)[:, group] * steps.astype(np.float32)
            return scaled

        return rows
