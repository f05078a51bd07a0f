"""Tensors on the way from a checkpoint to a file: read only when they are written, in pieces where possible."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.quantized.nvfp4 import Nvfp4Tensor
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["Array", "Floats"]

Floats = NDArray[np.float32]
_PIECE_ELEMENTS = 1 << 24


class Array:
    """A tensor that is still to be read.

    shape   rows first
    dtype   of the checkpoint: "F32", "F16", "BF16" ...; what is computed is rounded as that type would be
    pieces  called to read it: float32, in order; together they are the tensor, whatever their shapes. Each holds
            whole rows (of the last dimension)
    """

    untouched: LazyTensor | None = None
    """the tensor of the checkpoint, as long as nothing has been done to it"""
    format: str | None = None
    """the format of a file in which the tensor is already; its pieces are then the bytes, and only whole rows of them
    are moved"""
    factors: tuple[tuple[float, float], ...] = ()
    """for weights in NVFP4, the factor of each of the matrices that are stacked, and that of its input"""

    def __init__(self, shape: Sequence[int], dtype: str, pieces: Callable[[], Iterator[Floats]]) -> None:
        self.shape: tuple[int, ...] = tuple(shape)
        self.dtype = dtype
        self.pieces = pieces

    @classmethod
    def stored(cls, shape: Sequence[int], format: str, pieces: Callable[[], Iterator[NDArray[np.uint8]]]) -> Array:
        """A tensor that is stored in a format of GGUF files already."""
        array = cls(shape, "U8", pieces)  # type: ignore[arg-type]
        array.format = format
        return array

    @classmethod
    def of(cls, tensor: LazyTensor) -> Array:
        """A tensor of a checkpoint. One in NVFP4 keeps its format."""
        if isinstance(tensor, Nvfp4Tensor) and tensor.has_blocks:
            step = max(1, _PIECE_ELEMENTS // tensor.shape[1])
            starts = range(0, tensor.shape[0], step)
            blocks = cls.stored(
                tensor.shape,
                "NVFP4",
                lambda: (tensor.blocks(start, min(start + step, tensor.shape[0])) for start in starts),
            )
            blocks.factors = ((tensor.factor, tensor.input_factor),)
            return blocks
        array = cls(tensor.shape, tensor.dtype, lambda: tensor.pieces())
        array.untouched = tensor
        return array

    def stored_pieces(self) -> Iterator[NDArray[Any]]:
        """An untouched tensor as it is stored, in pieces."""
        assert self.untouched is not None
        rows = self.shape[0] if self.shape else 0
        step = max(1, _PIECE_ELEMENTS // max(1, math.prod(self.shape[1:])))
        for start in range(0, rows, step):
            yield self.untouched.raw_rows(start, min(start + step, rows))

    @classmethod
    def values(cls, values: Any) -> Array:
        """Given numbers, as float32."""
        array = np.asarray(values, dtype=np.float32)
        return cls(array.shape, "F32", lambda: iter([array]))

    def read(self) -> Floats:
        """The whole tensor; in a format of files, the bytes of each row."""
        pieces = list(self.pieces())
        flat = pieces[0] if len(pieces) == 1 else np.concatenate([piece.reshape(-1) for piece in pieces])
        return flat.reshape(self.shape if self.format is None else (*self.shape[:-1], -1))

    def _like(self, shape: Sequence[int], pieces: Callable[[], Iterator[Floats]]) -> Array:
        """Other rows in the same form."""
        made = Array(shape, self.dtype, pieces)
        made.format, made.factors = self.format, self.factors
        return made

    def each(self, function: Callable[[Floats], Floats]) -> Array:
        """The tensor with a function applied to every number."""
        self._refuse_blocks()

        def pieces() -> Iterator[Floats]:
            for piece in self.pieces():
                result = function(piece)
                yield result.astype(np.float16).astype(np.float32) if self.dtype == "F16" else result

        return Array(self.shape, self.dtype, pieces)

    def whole(self, shape: Sequence[int], function: Callable[[Floats], Floats]) -> Array:
        """The tensor with a function applied to all of it, which gives an array of `shape`."""
        if self.format is not None and tuple(shape)[-1] != self.shape[-1]:
            self._refuse_blocks()

        def pieces() -> Iterator[Floats]:
            values = self.read()
            result = function(values)
            expected = tuple(shape) if self.format is None else (*tuple(shape)[:-1], values.shape[-1])
            if result.shape != expected:
                raise ValueError(f"an array of the shape {result.shape} where {expected} was announced")
            yield result

        return self._like(shape, pieces)

    def _refuse_blocks(self) -> None:
        if self.format is not None:
            raise CheckpointError(
                f"weights in {self.format} of the shape {self.shape} would have to be changed for this architecture, "
                "which only those in 16 or 32 bits can be; convert the checkpoint that they were made from"
            )

    def reshaped(self, shape: Sequence[int]) -> Array:
        """The same numbers in another shape, in the same rows."""
        return self._like(shape, self.pieces)

    def rows(self, start: int, stop: int) -> Array:
        """Some of the rows of the first dimension."""
        return self.whole((stop - start, *self.shape[1:]), lambda array: array[start:stop])

    def transposed(self) -> Array:
        """The last two dimensions swapped."""
        self._refuse_blocks()
        shape = (*self.shape[:-2], self.shape[-1], self.shape[-2])
        return self.whole(shape, lambda array: array.swapaxes(-1, -2))

    @classmethod
    def stacked(cls, arrays: Sequence[Array], what: str) -> Array:
        """Several tensors of one shape as one with a dimension more, in front.

        Raises CheckpointError naming `what` if the shapes differ.
        """
        if len({array.shape for array in arrays}) != 1:
            raise CheckpointError(f"{what}: the tensors to be stacked differ in shape; the checkpoint is damaged")
        first = arrays[0]
        if len({array.format for array in arrays}) != 1:
            raise CheckpointError(f"{what}: some of the tensors to be stacked are quantized, others are not")
        stacked = first._like((len(arrays), *first.shape), lambda: _chained(arrays))
        stacked.factors = tuple(factor for array in arrays for factor in array.factors)
        return stacked

    @classmethod
    def joined(cls, arrays: Sequence[Array]) -> Array:
        """Several tensors one below the other."""
        shape = (sum(array.shape[0] for array in arrays), *arrays[0].shape[1:])
        if len({(array.format, array.factors) for array in arrays}) != 1:
            arrays[0]._refuse_blocks()
            arrays[-1]._refuse_blocks()
        return arrays[0]._like(shape, lambda: _chained(arrays))


def _chained(arrays: Sequence[Array]) -> Iterator[Floats]:
    for array in arrays:
        yield from array.pieces()
