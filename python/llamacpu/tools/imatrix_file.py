"""Importance matrices: how much an error in each column of a weight matrix counts, measured by running a model.

Two kinds of file are read, both of llama.cpp: GGUF files with sums of squared inputs and counts, and the older binary
form (`.dat`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from llamacpu.arguments import path as check_path
from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Entry", "ImportanceMatrix", "read_importance_matrix"]

_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_NAME = 1 << 16


@dataclass(frozen=True, eq=False)
class Entry:
    """What was measured for one tensor.

    sums    float32[matrices, columns]: sums of the squares of each input; one row for each expert of a stack
    counts  float64[matrices]: how many inputs were summed
    """

    sums: NDArray[np.float32]
    counts: NDArray[np.float64]

    @property
    def importance(self) -> NDArray[np.float32]:
        """float32[matrices, columns]: means of the squares; ones for an expert that was never used."""
        used = self.counts > 0
        means = np.ones_like(self.sums)
        np.divide(self.sums, self.counts[:, None], out=means, where=used[:, None], casting="same_kind")
        return means


@dataclass(frozen=True, eq=False, repr=False)
class ImportanceMatrix:
    """An importance matrix file.

    path         where it was read from
    entries      tensor name to what was measured for it
    datasets     names of the texts that were read, as the file tells them
    chunks       number of pieces of text; 0 if the file does not tell
    chunk_size   tokens in each; 0 if the file does not tell
    """

    path: Path
    entries: dict[str, Entry]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int

    def importance(self, name: str, matrices: int, columns: int) -> NDArray[np.float32] | None:
        """float32[matrices, columns] for a tensor, or `None` if the file has no entry for it.

        Raises ModelError for an entry of another size: the file belongs to another model.
        """
        entry = self.entries.get(name)
        if entry is None:
            return None
        importance = entry.importance
        if importance.size != matrices * columns:
            raise ModelError(
                f"{self.path.name}: the entry of {name!r} has {importance.size} numbers, and the tensor "
                f"{matrices} times {columns} inputs; use an importance matrix that was made with this model"
            )
        return importance.reshape(matrices, columns)

    def __repr__(self) -> str:
        return f"<ImportanceMatrix {self.path.name!r}: {len(self.entries)} tensors, {self.chunks} chunks>"


def read_importance_matrix(path: str | os.PathLike[str]) -> ImportanceMatrix:
    """Read an importance matrix of either form.

    Raises ModelError for a file that is none or that holds negative, infinite or NaN numbers, GGUFError for a damaged
    GGUF file, OSError if the file cannot be read.
    """
    check_path("path", path)
    path = Path(path)
    with path.open("rb") as file:
        magic = file.read(4)
        matrix = _of_gguf(path) if magic == b"GGUF" else _of_binary(path, file)
    for name, entry in matrix.entries.items():
        if not (np.isfinite(entry.sums).all() and np.isfinite(entry.counts).all()):
            raise ModelError(f"{path.name}: the entry of {name!r} holds infinite or NaN numbers; measure it again")
        if (entry.sums < 0).any() or (entry.counts < 0).any():
            raise ModelError(f"{path.name}: the entry of {name!r} holds negative numbers; measure it again")
    return matrix


def _of_gguf(path: Path) -> ImportanceMatrix:
    with GGUFFile(path) as file:
        tensors = {tensor.name: tensor for tensor in file.tensors}
        entries = {}
        for name, tensor in tensors.items():
            if not name.endswith(_SUMS):
                continue
            base = name.removesuffix(_SUMS)
            counts = tensors.get(base + _COUNTS)
            if counts is None or {tensor.type_name, counts.type_name} != {"F32"}:
                raise ModelError(f"{path.name}: {name!r} has no counts beside it, or is not F32; measure it again")
            sums, numbers = (np.frombuffer(file.tensor_bytes(each, 0, each.nbytes), "<f4") for each in (tensor, counts))
            if not numbers.size or not sums.size or sums.size % numbers.size:
                raise ModelError(
                    f"{path.name}: {name!r} has {sums.size} numbers and {numbers.size} counts; expected a multiple"
                )
            entries[base] = Entry(sums.reshape(numbers.size, -1), np.rint(numbers).astype(np.float64))
        if not entries:
            raise ModelError(f"{path.name}: no importance matrix: expected tensors whose names end in {_SUMS!r}")
        datasets: object = file.metadata.get("imatrix.datasets", ())
        chunks, size = (file.metadata.get(f"imatrix.chunk_{key}", 0) for key in ("count", "size"))
        names = tuple(map(str, datasets)) if isinstance(datasets, Iterable) else ()
        return ImportanceMatrix(path, entries, names, *(int(n) if isinstance(n, int) else 0 for n in (chunks, size)))


def _of_binary(path: Path, file: BinaryIO) -> ImportanceMatrix:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    wrong = ModelError(f"{path.name}: no importance matrix, or only a part of one; make or fetch it again")

    def take(count: int) -> bytes:
        # Compared before reading: a damaged length must not cost memory.
        if not 0 <= count <= size - file.tell():
            raise wrong
        return file.read(count)

    def integer() -> int:
        return int(struct.unpack("<i", take(4))[0])

    entries = {}
    count = integer()
    if count < 1:
        raise wrong
    for _ in range(count):
        length = integer()
        if not 0 < length <= _MAX_NAME:
            raise wrong
        name = take(length).rstrip(b"\0").decode("utf-8", "replace")
        calls, values = integer(), integer()
        if values < 1 or calls < 0:
            raise wrong
        sums = np.frombuffer(take(4 * values), "<f4")
        # The sums are means times the number of calls.
        entries[name] = Entry(sums.reshape(1, -1), np.array([float(max(calls, 1))]))
    chunks = 0
    datasets: tuple[str, ...] = ()
    if file.tell() < size:
        chunks = max(integer(), 0)
        if file.tell() < size:
            datasets = (take(integer()).rstrip(b"\0").decode("utf-8", "replace"),)
    return ImportanceMatrix(path, entries, datasets, chunks, 0)
