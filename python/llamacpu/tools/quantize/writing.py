"""Writes the new file of a quantization: the next piece of a tensor is read and converted while one is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from llamacpu import _native, kernels
from llamacpu.errors import GGUFError, ModelError
from llamacpu.gguf.writer import NewTensor, Progress, Typed, copied_tensor, write_gguf
from llamacpu.tools.quantize.factors import Factors
from llamacpu.tools.quantize.tensors import matrices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.gguf.file import GGUFFile
    from llamacpu.tools.quantize.plan import Step

__all__ = ["Writer"]

_PIECE_WEIGHTS = 1 << 21


class _Piece(NamedTuple):
    """Some rows of a tensor, all of one matrix."""

    step: Step
    first: int
    rows: int
    importance: NDArray[np.float32] | None


class Writer:
    """Writes the tensors of a file in other types, each with the importance of its columns if that is known."""

    def __init__(self, file: GGUFFile, importance: Mapping[str, NDArray[np.float32]], threads: int) -> None:
        self._file = file
        self._importance = importance
        self._threads = threads
        self._factors = Factors(file, ())

    def write(
        self,
        target: Path,
        steps: Sequence[Step],
        metadata: dict[str, Any],
        keep_split: bool,
        on_progress: Progress | None,
    ) -> tuple[Path, ...]:
        """Write one file, or as many as the source has; return their paths. Raises what `write_gguf` raises."""
        count = len(self._file.paths) if keep_split else 1
        self._factors = Factors(self._file, steps)
        if count == 1:
            self._write_one(target, steps, metadata, on_progress)
            return (target,)
        stem = re.sub(r"(-\d{5}-of-\d{5})?(\.gguf)?$", "", target.name, count=1)
        paths = tuple(target.with_name(f"{stem}-{number + 1:05}-of-{count:05}.gguf") for number in range(count))
        parts = [[step for step in steps if step.tensor.file == number] for number in range(count)]
        total, before = sum(step.nbytes for step in steps), 0
        for number, (path, part) in enumerate(zip(paths, parts, strict=True)):
            split = {
                "split.no": Typed(number, "uint16"),
                "split.count": Typed(count, "uint16"),
                "split.tensors.count": Typed(len(steps) + len(self._factors), "int32"),
            }
            values = (metadata if number == 0 else {}) | split
            progress = None if on_progress is None else _moved(on_progress, before, total)
            self._write_one(path, sorted(part, key=lambda step: step.tensor.offset), values, progress)
            before += sum(step.nbytes for step in part)
        return paths

    def _write_one(
        self, path: Path, steps: Sequence[Step], metadata: dict[str, Any], on_progress: Progress | None
    ) -> None:
        with ThreadPoolExecutor(1, "quantization") as executor:
            converted = self._converted(steps, executor)
            tensors = []
            for step in steps:
                factor = self._factors.tensor(step.tensor)
                tensors += [self._new(step, converted), *([] if factor is None else [factor])]
            write_gguf(
                path,
                metadata,
                tensors,
                alignment=self._file.alignment,
                inputs=self._file.paths,
                on_progress=on_progress,
            )

    def _new(self, step: Step, converted: Iterator[NDArray[np.uint8]]) -> NewTensor:
        if not step.converts:
            return copied_tensor(self._file, step.tensor)

        def data() -> Iterable[NDArray[np.uint8]]:
            # The tensors are written in their order, which is that of `converted`.
            for _ in self._pieces(step):
                yield next(converted)

        return NewTensor(step.tensor.name, step.tensor.shape[::-1], step.format, data)

    def _converted(self, steps: Sequence[Step], executor: ThreadPoolExecutor) -> Iterator[NDArray[np.uint8]]:
        """The new data of all tensors, piece after piece; the next piece is on its way while one is used."""
        ahead: Future[NDArray[np.uint8]] | None = None
        for step in steps:
            for piece in self._pieces(step) if step.converts else ():
                following = executor.submit(self._convert, piece)
                if ahead is not None:
                    yield ahead.result()
                ahead = following
        if ahead is not None:
            yield ahead.result()

    def _pieces(self, step: Step) -> Iterator[_Piece]:
        """A tensor in pieces of a few million weights."""
        tensor = step.tensor
        importance = self._importance.get(tensor.name)
        factors = step.format == "NVFP4"
        stacked = matrices(tensor) if importance is not None or factors else 1
        rows_each = _rows(step) // stacked
        at_once = max(1, _PIECE_WEIGHTS // max(tensor.shape[0], 1))
        for matrix in range(stacked):
            weights = None if importance is None else np.ascontiguousarray(importance[matrix])
            for first in range(0, rows_each, at_once):
                yield _Piece(step, matrix * rows_each + first, min(at_once, rows_each - first), weights)

    def _convert(self, piece: _Piece) -> NDArray[np.uint8]:
        step, tensor = piece.step, piece.step.tensor
        start = tensor.offset + piece.first * (tensor.nbytes // max(_rows(step), 1))
        files = self._file.native_files
        if not files:
            raise GGUFError("the GGUF file is closed: read its tensors before close()")
        try:
            if self._factors.of(tensor) is not None:
                rows = self._factors.rows(tensor, piece.first, piece.rows)
                return kernels.quantize(rows, step.format, piece.importance, threads=self._threads)
            return _native.kernels.convert_stored(
                files[tensor.file],
                start,
                piece.rows,
                tensor.shape[0],
                tensor.type_name,
                step.format,
                piece.importance,
                self._threads,
            )
        except GGUFError:
            raise
        except ValueError as error:
            place = f" (rows from {piece.first} on)" if piece.first else ""
            raise ModelError(f"tensor {tensor.name!r}{place}: {error}") from error


def _rows(step: Step) -> int:
    shape = step.tensor.shape
    return int(np.prod(shape[1:], dtype=np.int64)) if len(shape) > 1 else 1


def _moved(on_progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: on_progress(before + done, total)
