"""Weights of 8 bits (floats or integers) with scales: one for the tensor, for each row, or for each block.

W = scale · q, in float32. The scales of DeepSeek's and Qwen's checkpoints are named "inverse", but are multiplied, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.quantized.computed import ComputedTensor, Rows
from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.checkpoints.types import FLOATS
from llamacpu.errors import CheckpointError

__all__ = ["ScaledTensor"]


class ScaledTensor(ComputedTensor):
    """A tensor of 8-bit numbers times its scales, less a zero point if there is one.

    Each dimension of the scales has one entry, as many as the tensor, or one for each block of the size in `blocks`.
    Scales with fewer dimensions belong to the first ones of the tensor; `blocks` to the last ones.
    """

    def __init__(
        self, weight: LazyTensor, scale: LazyTensor, zero: LazyTensor | None = None, blocks: Sequence[int] = ()
    ) -> None:
        super().__init__(weight.name, weight.shape)
        self.weight: LazyTensor = weight
        self.scale: LazyTensor = scale
        self.zero: LazyTensor | None = zero
        # It has the place of the tensor of 8 bits among the others.
        self.source: Source | None = getattr(weight, "source", None)
        dimensions = len(weight.shape)
        lengths = scale.shape + (1,) * (dimensions - len(scale.shape))
        sizes = (0,) * (dimensions - len(blocks)) + tuple(blocks)
        if not dimensions or len(lengths) != dimensions or len(sizes) != dimensions:
            raise CheckpointError(f"{scale.name}: {scale.shape} are not the scales of a tensor {weight.shape}")
        if scale.dtype not in FLOATS:
            raise CheckpointError(f"{scale.name}: scales of the type {scale.dtype} are not supported; expected floats")
        if zero is not None and zero.shape not in (scale.shape, ()):
            raise CheckpointError(f"{zero.name}: {zero.shape}; expected a zero point for each scale, {scale.shape}")
        self.lengths: tuple[int, ...] = lengths
        # For each dimension, which scale belongs to each place.
        self.places: list[NDArray[np.int64] | None] = [
            _places(length, count, size, scale)
            for length, count, size in zip(weight.shape, lengths, sizes, strict=True)
        ]

    def load(self) -> Rows:
        scale = self.scale.read().reshape(self.lengths)
        zero = None if self.zero is None else np.broadcast_to(self.zero.read(), self.scale.shape).reshape(self.lengths)

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            values = self.weight.rows(start, stop)
            if zero is not None:
                values -= self._spread(zero, start, stop)
            values *= self._spread(scale, start, stop)
            return values

        return rows

    def _spread(self, values: NDArray[np.float32], start: int, stop: int) -> NDArray[np.float32]:
        """One value for each element of the rows `start` to `stop`, or one that is broadcast."""
        first = self.places[0]
        values = values if first is None else values[first[start:stop]]
        for axis, places in enumerate(self.places[1:], 1):
            values = values if places is None else values.take(places, axis)
        return values


def _places(length: int, count: int, size: int, scale: LazyTensor) -> NDArray[np.int64] | None:
    if count == 1:
        return None
    if count == length:
        return np.arange(length)
    if size < 1 or -(-length // size) != count:
        raise CheckpointError(
            f"{scale.name}: {scale.shape} are not the scales of a tensor with a dimension of {length}"
            + (f" in blocks of {size}" if size else "")
        )
    return np.arange(length) // size
