"""Factors of matrices in NVFP4, whose scales cannot be smaller than 2^-9 or larger than 448."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from llamacpu import kernels
from llamacpu.gguf.writer import NewTensor
from llamacpu.tools.quantize.tensors import matrices, takes_factor

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from llamacpu.gguf.file import GGUFFile
    from llamacpu.gguf.header import Tensor
    from llamacpu.tools.quantize.plan import Step

__all__ = ["Factors"]

_LARGEST = 6.0 * 448.0
_PIECE_WEIGHTS = 1 << 21


class Factors:
    """The factors of a file's matrices that become NVFP4: with them, the largest weight of each is the largest number.

    They are stored as `NAME.scale`, one for each matrix of a stack. A matrix whose source has such a factor keeps it.
    """

    def __init__(self, file: GGUFFile, steps: Sequence[Step]) -> None:
        self._file = file
        names = {tensor.name for tensor in file.tensors}
        self._wanted = {
            step.tensor.name
            for step in steps
            if step.converts
            and step.format == "NVFP4"
            and takes_factor(step.tensor.name)
            and _factor_name(step.tensor.name) not in names
        }
        self._found: dict[str, NDArray[np.float32]] = {}

    def __len__(self) -> int:
        """The number of further tensors."""
        return len(self._wanted)

    def of(self, tensor: Tensor) -> NDArray[np.float32] | None:
        """float32[matrices], or None for a tensor without factors. Reads the whole tensor at the first call."""
        if tensor.name not in self._wanted:
            return None
        if tensor.name not in self._found:
            largest = np.zeros(matrices(tensor), dtype=np.float32)
            for first, weights in _weights(self._file, tensor):
                part = first // max(_rows(tensor) // len(largest), 1)
                largest[part] = max(largest[part], np.abs(weights).max(initial=0))
            usable = np.isfinite(largest) & (largest > 0)
            self._found[tensor.name] = np.where(usable, largest / np.float32(_LARGEST), 1).astype(np.float32)
        return self._found[tensor.name]

    def tensor(self, tensor: Tensor) -> NewTensor | None:
        """The tensor with the factors of a matrix; None if it has none."""
        if tensor.name not in self._wanted:
            return None
        return NewTensor(_factor_name(tensor.name), (matrices(tensor),), "F32", lambda: [self.of(tensor)])  # type: ignore[list-item]

    def rows(self, tensor: Tensor, first: int, count: int) -> NDArray[np.float32]:
        """Some rows of a tensor, all of one matrix, divided by its factor: float32[count, columns]."""
        factors = self.of(tensor)
        weights = _read(self._file, tensor, first, count)
        return weights if factors is None else weights / factors[first // max(_rows(tensor) // len(factors), 1)]


def _factor_name(name: str) -> str:
    return name.removesuffix(".weight") + ".scale"


def _rows(tensor: Tensor) -> int:
    return math.prod(tensor.shape[1:])


def _weights(file: GGUFFile, tensor: Tensor) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """A tensor in pieces of a few million weights, all of one matrix, each with the number of its first row."""
    each = _rows(tensor) // max(matrices(tensor), 1)
    at_once = max(1, _PIECE_WEIGHTS // max(tensor.shape[0], 1))
    for start in range(0, _rows(tensor), max(each, 1)):
        for first in range(start, start + each, at_once):
            yield first, _read(file, tensor, first, min(at_once, start + each - first))


def _read(file: GGUFFile, tensor: Tensor, first: int, count: int) -> NDArray[np.float32]:
    row_bytes = tensor.nbytes // max(_rows(tensor), 1)
    data = np.frombuffer(file.tensor_bytes(tensor, first * row_bytes, (first + count) * row_bytes), dtype=np.uint8)
    return kernels.dequantize(data.reshape(count, row_bytes), tensor.type_name)
