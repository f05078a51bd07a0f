"""Tensors made of the elements of others: strided, joined, with their rows in another order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import LazyTensor, StoredTensor
from llamacpu.checkpoints.types import RAW
from llamacpu.errors import CheckpointError

__all__ = ["JoinedTensor", "RotatedHeads", "StridedTensor"]


class StridedTensor(LazyTensor):
    """A view of a run of elements in a file, such as a transposed matrix; `strides` in elements, none negative."""

    def __init__(
        self, name: str, shape: tuple[int, ...], dtype: str, source: Source, offset: int, strides: tuple[int, ...]
    ) -> None:
        super().__init__(name, shape, dtype)
        self.strides = strides
        self._flat = StoredTensor(name, (_span(shape, strides),), dtype, source, offset)

    def read_raw(self) -> NDArray[Any]:
        return self._view(0, self.shape)

    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        self._check_rows(start, stop)
        return self._view(start * self.strides[0], (stop - start, *self.shape[1:]))

    def _view(self, first: int, shape: tuple[int, ...]) -> NDArray[Any]:
        span = _span(shape, self.strides)
        if not span:
            return np.empty(shape, RAW[self.dtype])
        flat = self._flat.raw_rows(first, first + span)
        strides = [stride * flat.itemsize for stride in self.strides]
        return np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, shape, strides)).reshape(shape)


class JoinedTensor(LazyTensor):
    """Parts of a matrix or vector, one after the other along dimension 0 or 1."""

    def __init__(self, name: str, parts: Sequence[LazyTensor], axis: int) -> None:
        first = parts[0]
        for part in parts:
            if len(part.shape) <= axis or part.dtype != first.dtype or not _join(part, first, axis):
                raise CheckpointError(
                    f"{name}: a part {part.dtype} {part.shape} does not continue {first.dtype} {first.shape}: the "
                    "files are not the parts of one checkpoint"
                )
        length = sum(part.shape[axis] for part in parts)
        super().__init__(name, (*first.shape[:axis], length, *first.shape[axis + 1 :]), first.dtype)
        self.parts: tuple[LazyTensor, ...] = tuple(parts)
        self.axis = axis

    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        self._check_rows(start, stop)
        if self.axis:
            return np.concatenate([part.raw_rows(start, stop) for part in self.parts], axis=self.axis)
        pieces, before = [], 0
        for part in self.parts:
            low, high = max(start - before, 0), min(stop - before, part.shape[0])
            if low < high:
                pieces.append(part.raw_rows(low, high))
            before += part.shape[0]
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else self.parts[0].raw_rows(0, 0)


class RotatedHeads(LazyTensor):
    """Rows of a query or key matrix in the order of Hugging Face's rotation, from Meta's.

    Meta's code rotates neighbouring elements of a head, Hugging Face's the halves of a head: row 2 i + j of each head
    becomes row j · width / 2 + i.
    """

    def __init__(self, matrix: LazyTensor, heads: int) -> None:
        super().__init__(matrix.name, matrix.shape, matrix.dtype)
        if not heads or not matrix.shape or matrix.shape[0] % (2 * heads):
            raise CheckpointError(f"{matrix.name}: {matrix.shape} cannot be divided into {heads} heads of even width")
        self.matrix = matrix
        self.width: int = matrix.shape[0] // heads

    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        self._check_rows(start, stop)
        width = self.width
        first, last = start // width, -(-stop // width)
        raw = self.matrix.raw_rows(first * width, last * width)
        heads = raw.reshape(last - first, width // 2, 2, *raw.shape[1:])
        turned: NDArray[Any] = heads.swapaxes(1, 2).reshape(raw.shape)
        return turned[start - first * width : stop - first * width]


def _span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """The number of elements from the first to the last of a view."""
    if not math.prod(shape):
        return 0
    return 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))


def _join(part: LazyTensor, first: LazyTensor, axis: int) -> bool:
    return part.shape[:axis] == first.shape[:axis] and part.shape[axis + 1 :] == first.shape[axis + 1 :]
