"""Random numbers that are the same for ever: NumPy may change what its generators give for a seed."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray


class Stream:
    """Stands in for `numpy.random.Generator` in tests whose results are compared with committed ones."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls = 0

    def bytes(self, count: int) -> NDArray[np.uint8]:
        self._calls += 1
        data = hashlib.shake_256(f"{self._name} {self._calls}".encode()).digest(count)
        return np.frombuffer(data, dtype=np.uint8)

    def units(self, shape: tuple[int, ...] | int) -> NDArray[np.float64]:
        """Multiples of 2^-24 from 0 to 1, without the 1."""
        words = self.bytes(4 * int(np.prod(shape))).view("<u4")
        return ((words >> 8) / 2.0**24).reshape(shape)

    def random(self) -> float:
        return float(self.units(()))

    def standard_normal(self, shape: tuple[int, ...] | int) -> NDArray[np.float64]:
        """Mean 0 and variance 1, from three sums that are exact."""
        return 2 * (self.units(shape) + self.units(shape) + self.units(shape) - 1.5)

    def uniform(self, low: float, high: float, count: int) -> NDArray[np.float64]:
        return low + (high - low) * self.units((count,))

    def integers(self, low: int, high: int, shape: tuple[int, ...], dtype: type[np.uint8]) -> NDArray[np.uint8]:
        assert (low, high, dtype) == (0, 256, np.uint8), "only bytes are asked for"
        return self.bytes(int(np.prod(shape))).reshape(shape).copy()
