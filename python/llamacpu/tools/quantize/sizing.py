"""Types for a file of a given size: the largest bits where errors do the most harm."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from llamacpu import kernels
from llamacpu.errors import ModelError
from llamacpu.gguf.writer import tensor_nbytes
from llamacpu.tools.quantize.effects import divergences, groups_of, round_trip
from llamacpu.tools.quantize.knapsack import Choice, cheapest_choices
from llamacpu.tools.quantize.plan import Options, Step
from llamacpu.tools.quantize.rules import facts_of
from llamacpu.tools.quantize.tensors import in_order, is_quantizable, matrices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.gguf.file import GGUFFile
    from llamacpu.gguf.header import Tensor

__all__ = ["Sizing", "parsed_size", "sized_plan", "sizing_of"]

_UNITS = {"": 1, "B": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?I?)B?\s*", re.IGNORECASE)
_LARGE_BLOCKS = ("Q2_K", "IQ3_S", "IQ4_XS", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
_WITH_IMPORTANCE = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS")
_SMALL_BLOCKS = ("Q4_0", "IQ4_NL", "Q4_1", "Q5_0", "Q5_1", "Q8_0")
_SAMPLE = 1 << 18
_NEW_KEYS = 1024
_PIECE = 1 << 22
_TELLING_SHARE = 0.03


@dataclass(frozen=True)
class Sizing:
    """What is wanted, and what was found.

    nbytes      size of the file, or
    bits        bits per weight
    text        to measure with; `None` for one that the model writes itself
    count       how many of its tokens
    """

    nbytes: int | None = None
    bits: float | None = None
    text: str | None = None
    count: int = 256

    def budget(self, file: GGUFFile) -> int:
        """Bytes for all tensors."""
        if self.nbytes is not None:
            return self.nbytes - file.header_length - _NEW_KEYS - file.alignment * len(file.tensors)
        assert self.bits is not None
        return int(self.bits * sum(math.prod(tensor.shape) for tensor in file.tensors) / 8)


def parsed_size(text: str | float) -> int:
    """A number of bytes from a text such as "5GB" (decimal), "4.5 GiB" (binary) or a number.

    Raises ValueError for anything else.
    """
    found = _SIZE.fullmatch(str(text))
    if found is None or found[2].upper() not in _UNITS or float(found[1]) <= 0:
        raise ValueError(f"the size {text!r:.40} is not a number of bytes; write it as 5GB, 4.5GiB or 900MB")
    return int(float(found[1]) * _UNITS[found[2].upper()])


def sizing_of(preset: str | None, size: str | float | None, bits: float | None, text: str | None) -> Sizing | None:
    """Check what a caller asks for; `None` for a preset.

    Raises ValueError for a size that is none, and for a preset beside a size.
    """
    if size is None and bits is None:
        if text is not None:
            raise ValueError("text is for a target size; give target_size or target_bits as well")
        return None
    if preset is not None or (size is not None and bits is not None):
        raise ValueError("preset, target_size and target_bits exclude each other; give one of them")
    if bits is not None and not 0.5 < bits <= 32:
        raise ValueError(f"target_bits is {bits}; expected more than 0.5 and at most 32 bits per weight")
    return Sizing(None if size is None else parsed_size(size), bits, text)


def sized_plan(
    file: GGUFFile,
    sizing: Sizing,
    options: Options,
    importance: Callable[[Tensor], NDArray[np.float32] | None],
    folder: Path,
    threads: int | None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[list[Step], dict[str, float]]:
    """Types for all tensors within the size, and what each tensor's weighted squared error costs in nats per unit.

    Raises ModelError if the model does not run here, ValueError if the size is too small.
    """
    tensors = in_order(file.tensors)
    open_ones = [
        tensor for tensor in tensors if is_quantizable(tensor, options.leave_output) and _is_float(tensor, options)
    ]
    if not open_ones:
        raise ModelError("no tensor of this file can be quantized: give the F32, F16 or BF16 file of a model")
    fixed = sum(tensor.nbytes for tensor in tensors if tensor not in open_ones)
    budget = sizing.budget(file) - fixed
    allowed = {tensor.name: _allowed(tensor, options, importance(tensor) is not None) for tensor in open_ones}
    smallest = fixed + sum(_smallest(tensor, allowed[tensor.name]) for tensor in open_ones)
    if smallest > budget + fixed:
        raise ValueError(
            f"the tensors of this model take at least {smallest:,} bytes, and {max(budget + fixed, 0):,} are left for "
            "them; allow more, or give an importance matrix, which permits smaller types"
        )
    work = _Errors(file, threads or os.cpu_count() or 1, {t.name: importance(t) for t in open_ones})
    errors = {tensor.name: work.of(tensor, allowed[tensor.name]) for tensor in open_ones}
    bits = 8 * budget / sum(math.prod(tensor.shape) for tensor in open_ones)
    trials = {tensor.name: _telling(errors[tensor.name], bits) for tensor in open_ones}
    groups = groups_of(open_ones, facts_of(file.metadata).layers)
    measured = divergences(
        file, groups, lambda tensor: work.changed(tensor, trials[tensor.name]), sizing.text, sizing.count, folder,
        threads, on_progress,
    )  # fmt: skip
    effects: dict[str, float] = {}
    for group, divergence in zip(groups, measured, strict=True):
        total = sum(errors[tensor.name][trials[tensor.name]] for tensor in group)
        effects |= dict.fromkeys((tensor.name for tensor in group), divergence / total if total else 0.0)
    choices = {
        tensor.name: [
            Choice(format, tensor_nbytes(tensor.shape[::-1], format), effects[tensor.name] * error)
            for format, error in errors[tensor.name].items()
        ]
        for tensor in open_ones
    }
    chosen = cheapest_choices(choices, budget)
    steps = [Step(t, chosen[t.name].format if t.name in chosen else t.type_name) for t in tensors]
    return steps, effects


def _is_float(tensor: Tensor, options: Options) -> bool:
    return tensor.type_name in ("F32", "F16", "BF16") or (
        options.allow_requantize and tensor.type_name in kernels.FORMATS
    )


def _smallest(tensor: Tensor, formats: Sequence[str]) -> int:
    return min(tensor_nbytes(tensor.shape[::-1], format) for format in formats)


def _allowed(tensor: Tensor, options: Options, with_importance: bool) -> list[str]:
    """The types to choose from: those that fit the rows, and the tensor's own, which costs nothing."""
    named = options.named(tensor.name)
    if named is not None:
        return [named]
    names = [*_LARGE_BLOCKS, *_SMALL_BLOCKS]
    if with_importance:
        names += _WITH_IMPORTANCE
    large = tensor.shape[0] % 256 == 0
    fitting = [
        name
        for name in dict.fromkeys(names)
        if tensor.shape[0] % kernels.FORMATS[name].block_elements == 0 and not (large and name in ("Q4_0", "Q5_0"))
    ]
    return [*fitting, tensor.type_name if tensor.type_name != "F32" else "F16"]


def _telling(errors: Mapping[str, float], bits: float) -> str:
    """The type to measure with: its bits are near the average, since errors of that size are the ones that count.

    Weights that were quantized before lie on the grid of a type, and have almost no error with it, which says nothing
    about other types. So the error has to be of the size that its bits lead to expect: a quarter for each further one.
    """

    def bits_of(name: str) -> float:
        form = kernels.FORMATS[name]
        return 8 * form.block_bytes / form.block_elements

    coarsest = min(errors, key=bits_of)
    usual = {name: errors[coarsest] * 4.0 ** (bits_of(coarsest) - bits_of(name)) for name in errors}
    telling = (name for name in errors if errors[name] > _TELLING_SHARE * usual[name])
    return min(telling, key=lambda name: abs(bits_of(name) - bits), default=coarsest)


class _Errors:
    """Weighted squared errors of the types of a tensor."""

    def __init__(self, file: GGUFFile, threads: int, importance: Mapping[str, NDArray[np.float32] | None]) -> None:
        self._file = file
        self._threads = threads
        self.importance = importance

    def of(self, tensor: Tensor, formats: Sequence[str]) -> dict[str, float]:
        """The error of each type, from some rows of the tensor."""
        rows, row_bytes = self._rows(tensor)
        count = min(rows, max(1, _SAMPLE // tensor.shape[0]))
        places = np.unique(np.linspace(0, rows - 1, count).astype(np.int64))
        stacked = matrices(tensor)
        importance = self.importance[tensor.name]
        found = dict.fromkeys(formats, 0.0)
        each = rows // stacked
        for matrix in range(stacked):
            mine = [int(place) for place in places if place // each == matrix]
            if not mine:
                continue
            data = b"".join(
                self._file.tensor_bytes(tensor, place * row_bytes, (place + 1) * row_bytes) for place in mine
            )
            blocks = np.frombuffer(data, np.uint8).reshape(len(mine), row_bytes)
            weights = None if importance is None else np.ascontiguousarray(importance[matrix])
            values = kernels.dequantize(blocks, tensor.type_name)
            for format in formats:
                small = kernels.requantize(blocks, tensor.type_name, format, weights, threads=self._threads)
                squares = (kernels.dequantize(small, format) - values) ** 2
                columns = squares.sum(axis=0, dtype=np.float64)
                found[format] += float(columns @ weights if weights is not None else columns.sum())
        return {format: error * rows / len(places) for format, error in found.items()}

    def changed(self, tensor: Tensor, format: str) -> Iterable[NDArray[np.uint8]]:
        """The tensor after quantization to a type, in its own type."""
        rows, row_bytes = self._rows(tensor)
        stacked = matrices(tensor)
        importance = self.importance[tensor.name]
        each, at_once = rows // stacked, max(1, _PIECE // tensor.shape[0])
        for matrix in range(stacked):
            weights = None if importance is None else np.ascontiguousarray(importance[matrix])
            for first in range(matrix * each, (matrix + 1) * each, at_once):
                last = min(first + at_once, (matrix + 1) * each)
                data = self._file.tensor_bytes(tensor, first * row_bytes, last * row_bytes)
                blocks = np.frombuffer(data, np.uint8).reshape(last - first, row_bytes)
                yield round_trip(blocks, tensor.type_name, format, weights, self._threads)

    @staticmethod
    def _rows(tensor: Tensor) -> tuple[int, int]:
        rows = math.prod(tensor.shape[1:])
        return rows, tensor.nbytes // rows
