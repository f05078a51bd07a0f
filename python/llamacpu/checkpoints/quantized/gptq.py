"""GPTQ and AWQ: integers of a few bits in 32-bit words, with a scale and a zero point for each group of input columns.

Both store the transposed matrix (inputs, outputs). W[o, i] = scales[g(i), o] · (q[i, o] - zeros[g(i), o]).
Layouts: https://github.com/AutoGPTQ/AutoGPTQ (qlinear), https://github.com/casper-hansen/AutoAWQ (packing_utils).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.quantized.computed import ComputedTensor, Rows, fields
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["AwqTensor", "GptqTensor"]

_AWQ_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])  # where in a word each of eight neighbouring outputs lies


class _Grouped(ComputedTensor):
    """What both have in common: quants, zeros and scales of one layer, whose names begin with `layer`."""

    def __init__(self, layer: str, tensors: Mapping[str, LazyTensor], shape: tuple[int, int], bits: int) -> None:
        super().__init__(f"{layer}.weight", shape)
        self.bits = bits
        self.quants: LazyTensor = tensors[f"{layer}.qweight"]
        self.zeros: LazyTensor = self._part(tensors, layer, "qzeros")
        self.scales: LazyTensor = self._part(tensors, layer, "scales")
        self.groups: int = self.scales.shape[0] if self.scales.shape else 0
        outputs, inputs = shape
        fits = (
            self.scales.shape == (self.groups, outputs)
            and self.zeros.shape == (self.groups, outputs * bits // 32)
            and outputs * bits % 32 == 0
            and 0 < self.groups <= inputs
            and {self.quants.dtype, self.zeros.dtype} <= {"I32", "U32"}
        )
        if not fits:
            raise CheckpointError(
                f"{layer}: qweight {self.quants.shape}, qzeros {self.zeros.shape} and scales {self.scales.shape} do "
                f"not belong together as {bits}-bit weights"
            )

    def _part(self, tensors: Mapping[str, LazyTensor], layer: str, part: str) -> LazyTensor:
        if f"{layer}.{part}" not in tensors:
            raise CheckpointError(f"{layer}.{part} is missing in the checkpoint, but {layer}.qweight is there")
        return tensors[f"{layer}.{part}"]

    def group_of_inputs(self, size: int) -> NDArray[np.int64]:
        """The group of each input column, if `size` columns after each other form a group; -1: all."""
        inputs = self.shape[1]
        size = inputs if size == -1 else size
        if size < 1 or -(-inputs // size) != self.groups:
            raise CheckpointError(f"{self.name}: {inputs} columns in groups of {size} are not the {self.groups} it has")
        return np.arange(inputs) // size


class GptqTensor(_Grouped):
    """Quants along the inputs (inputs / 8, outputs), zeros along the outputs; `g_idx` names the group of an input."""

    def __init__(self, layer: str, tensors: Mapping[str, LazyTensor], bits: int, size: int, zero_offset: int) -> None:
        rows, outputs = _matrix(layer, tensors)
        super().__init__(layer, tensors, (outputs, rows * 32 // bits), bits)
        self.zero_offset = zero_offset
        self.index: LazyTensor | None = tensors.get(f"{layer}.g_idx")
        self.group_size = size
        if self.index is None:
            self.group_of_inputs(size)
        elif self.index.shape != (self.shape[1],):
            raise CheckpointError(f"{layer}.g_idx: {self.index.shape}; expected the group of {self.shape[1]} columns")

    def load(self) -> Rows:
        if self.index is None:
            group = self.group_of_inputs(self.group_size)
        else:
            group = self.index.read_raw().astype(np.int64)
            if group.size and not 0 <= group.min() <= group.max() < self.groups:
                raise CheckpointError(f"{self.name}: g_idx names a group beyond the {self.groups} there are")
        words = self.quants.read_raw()
        zeros = fields(self.zeros.read_raw(), self.bits).reshape(self.groups, -1).T.astype(np.int16) + self.zero_offset
        scales = self.scales.read().T

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            quants = fields(words[:, start:stop], self.bits).swapaxes(0, 1).reshape(stop - start, self.shape[1])
            steps = quants - zeros[start:stop, group]
            return scales[start:stop, group] * steps.astype(np.float32)

        return rows


class AwqTensor(_Grouped):
    """Quants and zeros along the outputs, eight to a word in AWQ's order (the layout "gemm"), always 4 bits."""

    def __init__(self, layer: str, tensors: Mapping[str, LazyTensor], size: int) -> None:
        inputs, words = _matrix(layer, tensors)
        super().__init__(layer, tensors, (words * 8, inputs), 4)
        self.group: NDArray[np.int64] = self.group_of_inputs(size)

    def load(self) -> Rows:
        words = self.quants.read_raw()
        zeros = _in_order(self.zeros.read_raw()).astype(np.int16).T
        scales = self.scales.read().T

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            first = start // 8
            quants = _in_order(words[:, first : -(-stop // 8)])[:, start - 8 * first : stop - 8 * first].T
            steps = quants - zeros[start:stop, self.group]
            return scales[start:stop, self.group] * steps.astype(np.float32)

        return rows


def _in_order(words: NDArray[np.int32]) -> NDArray[np.uint8]:
    return fields(words, 4)[:, :, _AWQ_PLACES].reshape(len(words), 8 * words.shape[1])


def _matrix(layer: str, tensors: Mapping[str, LazyTensor]) -> tuple[int, int]:
    shape = tensors[f"{layer}.qweight"].shape
    if len(shape) != 2:
        raise CheckpointError(f"{layer}.qweight: {shape}; expected a matrix")
    return shape[0], shape[1]
