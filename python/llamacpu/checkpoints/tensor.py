"""Tensors of a checkpoint, whose elements are read when they are asked for."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.types import RAW, to_float32

__all__ = ["LazyTensor", "StoredTensor"]

PIECE = 64 << 20  # bytes of float32


class LazyTensor(ABC):
    """A tensor of a checkpoint. Nothing is read before it is asked for, and nothing that was read is kept.

    name   as in the checkpoint
    shape  as NumPy and PyTorch write it: rows first
    dtype  type of the elements, in the names of safetensors: "BF16", "F16", "F32", "F64", "F8_E4M3", "I32" ...

    Every method that reads raises CheckpointError if the file is damaged or was changed in the meantime, and
    MemoryError if the result does not fit into the memory.
    """

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name = name
        self.shape = shape
        self.dtype = dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def read(self) -> NDArray[np.float32]:
        """Return the whole tensor as float32: exact but for F64 and long integers, which are rounded."""
        return to_float32(self.read_raw(), self.dtype)

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows `start` to `stop` (exclusive) of the first dimension as float32.

        Raises ValueError for a range outside the tensor, or for a tensor without dimensions.
        """
        return to_float32(self.raw_rows(start, stop), self.dtype)

    def pieces(self, limit: int = PIECE) -> Iterator[NDArray[np.float32]]:
        """Yield the tensor as float32 in ranges of rows, each of at most `limit` bytes but at least one row."""
        if not self.shape:
            yield self.read()
            return
        step = max(1, limit // max(1, 4 * math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], step):
            yield self.rows(start, min(start + step, self.shape[0]))

    def read_raw(self) -> NDArray[Any]:
        """Return the whole tensor as it is stored: the bits of BF16 as uint16, those of 8-bit floats as uint8."""
        return self.raw_rows(0, self.shape[0])

    @abstractmethod
    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows `start` to `stop` (exclusive) as they are stored; ValueError as `rows`."""

    def _check_rows(self, start: int, stop: int) -> None:
        if not self.shape or not 0 <= start <= stop <= self.shape[0]:
            raise ValueError(f"rows {start} to {stop} of {self.name}, a tensor of the shape {self.shape}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self.dtype} {self.shape}>"


class StoredTensor(LazyTensor):
    """A tensor whose elements lie one after the other in a file, from byte `offset` on."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str, source: Source, offset: int) -> None:
        super().__init__(name, shape, dtype)
        self.source = source
        self.offset = offset

    def read_raw(self) -> NDArray[Any]:
        return self._elements(0, self.size).reshape(self.shape)

    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        self._check_rows(start, stop)
        width = math.prod(self.shape[1:])
        return self._elements(start * width, (stop - start) * width).reshape(stop - start, *self.shape[1:])

    def _elements(self, start: int, count: int) -> NDArray[Any]:
        kind = RAW[self.dtype]
        offset = self.offset + start * kind.itemsize
        if self.dtype == "BOOL":  # bytes other than 0 and 1 are no valid NumPy booleans
            truth: NDArray[Any] = self.source.array(offset, np.dtype(np.uint8), count) != 0
            return truth
        return self.source.array(offset, kind, count)
