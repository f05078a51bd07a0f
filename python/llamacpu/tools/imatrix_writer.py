"""Writer of importance matrices in both of llama.cpp's forms.

GGUF: `general.type` is "imatrix"; `imatrix.datasets`, `imatrix.chunk_count` and `imatrix.chunk_size` say what was
measured; every tensor NAME has `NAME.in_sum2` (float32, inputs x matrices), the sums of the squares of its inputs, and
`NAME.counts` (float32, 1 x matrices), how many inputs were added.

The older form (.dat) has little-endian int32 numbers: the number of entries; for each the length of its name, the name,
its calls, the number of values, and float32 values, mean squares times the calls; then the number of chunks, the length
of the name of the dataset, and that name.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np

from llamacpu.errors import GGUFError, ModelError
from llamacpu.files import replacing
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.writer import NewTensor, Typed, write_gguf
from llamacpu.tools.imatrix_file import ImportanceMatrix, read_importance_matrix

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_importance_matrix"]


def write_importance_matrix(
    path: str | os.PathLike[str], matrix: ImportanceMatrix, form: Literal["gguf", "dat"] = "gguf"
) -> None:
    """Write a file, in the newer form or in the older one.

    Raises FileExistsError for a file that holds something other than an importance matrix, OSError if it cannot be
    written.
    """
    if form not in ("gguf", "dat"):
        raise ValueError(f'form is {form!r}; expected "gguf" or "dat"')
    names = sorted(matrix.entries)
    _refuse_other_files(path)
    if form == "dat":
        with replacing(path, "an importance matrix", lambda _file: True, ordinary=True) as file:
            _write_binary(file, matrix, names)
        return
    tensors = []
    for name in names:
        entry = matrix.entries[name]
        count = len(entry.counts)
        tensors.append(_floats(f"{name}.in_sum2", entry.sums.shape if count > 1 else (entry.sums.size,), entry.sums))
        tensors.append(_floats(f"{name}.counts", (count, 1) if count > 1 else (1,), entry.counts))
    metadata = {
        "general.type": "imatrix",
        "imatrix.datasets": Typed(list(matrix.datasets), "string"),
        "imatrix.chunk_count": Typed(matrix.chunks, "uint32"),
        "imatrix.chunk_size": Typed(matrix.chunk_size, "uint32"),
    }
    write_gguf(path, metadata, tensors)


def _floats(name: str, shape: tuple[int, ...], values: NDArray[Any]) -> NewTensor:
    return NewTensor(name, shape, "F32", lambda: [values.astype("<f4")])


def _is_gguf(path: str | os.PathLike[str]) -> bool:
    with Path(path).open("rb") as file:
        return file.read(4) == b"GGUF"


def _refuse_other_files(path: str | os.PathLike[str]) -> None:
    if not Path(path).is_file() or not Path(path).stat().st_size:
        return  # what else may be there is checked by the writer
    try:
        if not _is_gguf(path):
            read_importance_matrix(path)
            return
        with GGUFFile(path) as file:
            fine = file.metadata.get("general.type") == "imatrix"
    except (GGUFError, ModelError):
        fine = False
    if not fine:
        what = "the file holds something other than an importance matrix; give another name"
        raise FileExistsError(errno.EEXIST, what, os.fspath(path))


def _write_binary(file: BinaryIO, matrix: ImportanceMatrix, names: list[str]) -> None:
    size = max(matrix.chunk_size, 1)
    used = [name for name in names if matrix.entries[name].counts.any()]
    file.write(struct.pack("<i", len(used)))
    for name in used:
        entry = matrix.entries[name]
        calls = -(-int(entry.counts.max()) // size)
        raw = name.encode()
        file.write(struct.pack("<i", len(raw)) + raw + struct.pack("<ii", calls, entry.sums.size))
        file.write((entry.importance * np.float32(calls)).astype("<f4").tobytes())
    dataset = matrix.datasets[-1].encode() if matrix.datasets else b""
    file.write(struct.pack("<ii", matrix.chunks, len(dataset)) + dataset)
