"""Tensors of float32 that are computed from others, a range of rows at a time."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.tensor import PIECE, LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["ComputedTensor", "Rows", "bits_of", "fields"]

Rows = Callable[[int, int], NDArray[np.float32]]


class ComputedTensor(LazyTensor):
    """A matrix whose rows are computed from smaller tensors, which are read as a whole first."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__(name, shape, "F32")

    @abstractmethod
    def load(self) -> Rows:
        """Read what all rows need; return the function that computes the rows `start` to `stop`."""

    def raw_rows(self, start: int, stop: int) -> NDArray[Any]:
        self._check_rows(start, stop)
        return self.load()(start, stop)

    def pieces(self, limit: int = PIECE) -> Iterator[NDArray[np.float32]]:
        rows = self.load()
        step = max(1, limit // max(1, 4 * math.prod(self.shape[1:])))
        for start in range(0, self.shape[0], step):
            yield rows(start, min(start + step, self.shape[0]))


def fields(words: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Return the fields of 2, 4 or 8 bits of 32-bit words, the lowest first, in a further dimension at the end."""
    octets = np.ascontiguousarray(words, "<i4").view(np.uint8).reshape(*words.shape, 4, 1)
    if bits < 8:
        octets = octets >> np.arange(0, 8, bits, dtype=np.uint8) & np.uint8((1 << bits) - 1)
    return octets.reshape(*words.shape, 32 // bits)


def bits_of(value: Any) -> int:
    """Return the width of the fields, if it is one that is unpacked here; CheckpointError otherwise."""
    if type(value) is not int or value not in (2, 4, 8):
        raise CheckpointError(f"quantization to {value!r:.40} bits is not supported; expected 2, 4 or 8")
    return value
