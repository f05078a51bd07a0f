"""NVFP4: four-bit floats, an 8-bit float for 16 of them, and a factor of the whole matrix.

W[o, i] = E2M1(q[o, i]) · E4M3(scale[o, i / 16]) · factor. ModelOpt calls the parts `weight`, `weight_scale` and
`weight_scale_2`; compressed-tensors `weight_packed`, `weight_scale` and `weight_global_scale`, which is 1 / factor.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from llamacpu.checkpoints.quantized.computed import ComputedTensor, Rows
from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import LazyTensor
from llamacpu.errors import CheckpointError

__all__ = ["Nvfp4Tensor"]

_VALUES = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
_PART = 16
_BLOCK = 64


class Nvfp4Tensor(ComputedTensor):
    """The matrix `name`, as floats or as blocks of a GGUF file.

    factor        of all weights
    input_factor  what programs that round activations to NVFP4, too, multiply them by; 1 if it is not known
    """

    def __init__(self, name: str, tensors: Mapping[str, LazyTensor]) -> None:
        self._quants: LazyTensor = tensors.get(f"{name}_packed") or tensors[name]
        self.inverse: bool = f"{name}_packed" in tensors
        self._scales: LazyTensor = tensors[f"{name}_scale"]
        stem = name.removesuffix("weight")
        names = ("weight_global_scale", "input_global_scale") if self.inverse else ("weight_scale_2", "input_scale")
        self._factors: tuple[LazyTensor | None, ...] = tuple(tensors.get(stem + part) for part in names)
        shape, scales = self._quants.shape, self._scales.shape
        fits = (
            len(shape) == 2
            and self._quants.dtype == "U8"
            and self._scales.dtype == "F8_E4M3"
            and scales == (shape[0], 2 * shape[1] // _PART)
            and shape[1] * 2 % _PART == 0
            and all(factor is None or factor.size == 1 for factor in self._factors)
        )
        if not fits:
            raise CheckpointError(
                f"{name}: {self._quants.dtype} {shape} with scales {self._scales.dtype} {scales} is no matrix in NVFP4"
            )
        super().__init__(name, (shape[0], 2 * shape[1]))
        # Where the quants lie, which is where a converter finds the matrix.
        self.source: Source | None = getattr(self._quants, "source", None)

    @property
    def factor(self) -> float:
        return self._number(0)

    @property
    def input_factor(self) -> float:
        return self._number(1)

    @property
    def has_blocks(self) -> bool:
        """Whether rows consist of whole blocks of a GGUF file."""
        return self.shape[1] % _BLOCK == 0

    def _number(self, which: int) -> float:
        tensor = self._factors[which]
        if tensor is None:
            return 1.0
        number = tensor.read().reshape(-1)[0]
        if not np.isfinite(number) or number <= 0:
            raise CheckpointError(f"{tensor.name} is {number}; expected a positive number")
        return float(np.float32(1) / number if self.inverse else number)

    def load(self) -> Rows:
        factor = np.float32(self.factor)

        def rows(start: int, stop: int) -> NDArray[np.float32]:
            quants = self._quants.raw_rows(start, stop)
            values = _VALUES[np.stack([quants & 15, quants >> 4], axis=-1)].reshape(stop - start, -1, _PART)
            scaled = values * np.abs(self._scales.rows(start, stop))[..., None]
            return scaled.reshape(stop - start, self.shape[1]) * factor

        return rows

    def blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Rows `start` to `stop`, without the factor, as blocks of a GGUF file: uint8[rows, columns / 64 * 36]."""
        quants = self._quants.raw_rows(start, stop)
        values = np.stack([quants & 15, quants >> 4], axis=-1).reshape(stop - start, -1, 4, 2, _PART // 2)
        nibbles = (values[..., 0, :] | values[..., 1, :] << 4).reshape(stop - start, -1, _BLOCK // 2)
        scales = (self._scales.raw_rows(start, stop) & 127).reshape(stop - start, -1, 4)
        return np.concatenate([scales, nibbles], axis=-1).reshape(stop - start, -1)
