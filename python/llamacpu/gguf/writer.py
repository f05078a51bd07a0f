"""Writer of GGUF files: the header first, then each tensor's data as it comes, one piece at a time.

Layout: magic, version, counts, key-value pairs, tensor infos, padding, data (the GGUF specification of the ggml
project, version 3). The file takes its name when it is complete; until then it is a hidden file beside it.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Union

from llamacpu.arguments import path as check_path
from llamacpu.files import replacing
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.header import (
    DEFAULT_ALIGNMENT,
    MAX_ALIGNMENT,
    MAX_DIMENSIONS,
    MAX_KEY_BYTES,
    MAX_TENSOR_NAME_BYTES,
    Tensor,
)
from llamacpu.gguf.types import TENSOR_TYPES
from llamacpu.gguf.values import Typed, packed_string, packed_value, typed_metadata

if TYPE_CHECKING:
    import numpy
    import numpy.typing

__all__ = ["NewTensor", "Typed", "copied_tensor", "gguf_header", "tensor_nbytes", "typed_metadata", "write_gguf"]

Piece = Union[bytes, bytearray, memoryview, "numpy.typing.NDArray[Any]"]
Progress = Callable[[int, int], None]

_NUMBERS = {entry.name: number for number, entry in TENSOR_TYPES.items()}
_PIECE_BYTES = 1 << 24
_RESERVED_KEY = "general.alignment"


class NewTensor(NamedTuple):
    """A tensor to be written.

    name    at most 63 bytes
    shape   in NumPy's order: (rows, columns) of a matrix
    format  of the data: "F32", "BF16", "Q4_K" ...
    data    called when it is the tensor's turn; returns the bytes in pieces, in order. A piece is bytes or a
            little-endian NumPy array; all pieces together have `tensor_nbytes(shape, format)` bytes
    """

    name: str
    shape: tuple[int, ...]
    format: str
    data: Callable[[], Iterable[Piece]]


def tensor_nbytes(shape: Sequence[int], format: str) -> int:
    """The size of a tensor's data in bytes.

    Raises ValueError for an unknown format and for rows that are not a multiple of the format's blocks.
    """
    if format not in _NUMBERS:
        raise ValueError(f"the tensor format {format!r:.40} is unknown; expected one of {', '.join(_NUMBERS)}")
    _, elements, nbytes = TENSOR_TYPES[_NUMBERS[format]]
    row = shape[-1] if shape else 1
    if row % elements:
        raise ValueError(f"rows of {row} elements cannot be stored as {format}; expected a multiple of {elements}")
    return math.prod(shape) // elements * nbytes


def copied_tensor(file: GGUFFile, tensor: Tensor, name: str | None = None) -> NewTensor:
    """A tensor of an open file, to be written as it is there; under another `name` if one is given."""

    def pieces() -> Iterable[bytes]:
        for start in range(0, tensor.nbytes, _PIECE_BYTES):
            yield file.tensor_bytes(tensor, start, min(start + _PIECE_BYTES, tensor.nbytes))

    return NewTensor(name or tensor.name, tensor.shape[::-1], tensor.type_name, pieces)


def write_gguf(
    path: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    tensors: Sequence[NewTensor],
    *,
    alignment: int = DEFAULT_ALIGNMENT,
    inputs: Iterable[str | os.PathLike[str]] = (),
    on_progress: Progress | None = None,
) -> int:
    """Write a GGUF file, version 3; return its size in bytes.

    path         replaced at the end, at once, if it is a GGUF file or empty; after an error it is as it was
    metadata     key to value, in the order of the file: bool, int, float, str, a list or an array of them, a value of
                 `GGUFFile.metadata`, or `Typed` to name the type (see `typed_metadata` for those of a file)
    tensors      in the order of the file
    alignment    of the tensors in bytes, a power of two; other than 32 it is written to the metadata
    inputs       files that `path` must not replace, since data is read from them
    on_progress  called with the bytes of tensor data written so far and in total

    Everything is checked before the first byte is written. Raises ValueError or TypeError for metadata or tensors
    that a GGUF file cannot hold and for data of another size than the tensor's, FileExistsError if `path` is one of
    the inputs or no GGUF file, OSError if it cannot be written, before the start if the disk is too small.
    """
    check_path("path", path)
    head, sizes = gguf_header(metadata, tensors, alignment=alignment)
    total = len(head) + sum(_padded(size, alignment) for size in sizes)
    _refuse_inputs(Path(path), inputs)
    with replacing(path, "a GGUF file", _is_gguf, ordinary=True) as file:
        _check_room(Path(path), total)
        file.write(head)
        done = 0
        for tensor, size in zip(tensors, sizes, strict=True):
            for written in _written(file, tensor, size):
                done += written
                if on_progress is not None:
                    on_progress(done, sum(sizes))
            file.write(bytes(_padded(size, alignment) - size))
    return total


def gguf_header(
    metadata: Mapping[str, Any], tensors: Sequence[NewTensor], *, alignment: int = DEFAULT_ALIGNMENT
) -> tuple[bytes, list[int]]:
    """The header of a file as `write_gguf` writes it, with the padding after it, and the sizes of the tensors' data.

    The data of each tensor begins at the next multiple of the alignment. Raises ValueError and TypeError as
    `write_gguf`.
    """
    values = {key: value for key, value in metadata.items() if key != _RESERVED_KEY}
    if alignment != DEFAULT_ALIGNMENT:
        values[_RESERVED_KEY] = Typed(alignment, "uint32")
    sizes = _checked_sizes(tensors, alignment)
    return _header(values, tensors, sizes, alignment), sizes


def _checked_sizes(tensors: Sequence[NewTensor], alignment: int) -> list[int]:
    if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise ValueError(f"alignment is {alignment}; expected a power of two of at most {MAX_ALIGNMENT}")
    names: set[str] = set()
    sizes = []
    for tensor in tensors:
        if not 0 < len(tensor.name.encode()) <= MAX_TENSOR_NAME_BYTES:
            raise ValueError(f"the tensor name {tensor.name!r:.90} has no or over {MAX_TENSOR_NAME_BYTES} bytes")
        if tensor.name in names:
            raise ValueError(f"tensor {tensor.name!r} is given twice; expected every name once")
        names.add(tensor.name)
        if len(tensor.shape) > MAX_DIMENSIONS or any(size < 0 for size in tensor.shape):
            raise ValueError(
                f"tensor {tensor.name!r} has the shape {tensor.shape}; expected up to {MAX_DIMENSIONS} sizes"
            )
        try:
            sizes.append(tensor_nbytes(tensor.shape, tensor.format))
        except ValueError as error:
            raise ValueError(f"tensor {tensor.name!r}: {error}") from None
    return sizes


def _header(values: Mapping[str, Any], tensors: Sequence[NewTensor], sizes: Sequence[int], alignment: int) -> bytes:
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)))
    for key, value in values.items():
        if not isinstance(key, str) or not 0 < len(key.encode()) <= MAX_KEY_BYTES:
            raise ValueError(f"the metadata key {key!r:.80} is not a string of 1 to {MAX_KEY_BYTES} bytes")
        head += packed_string(key) + packed_value(value, key)
    offset = 0
    for tensor, size in zip(tensors, sizes, strict=True):
        head += packed_string(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape))
        head += struct.pack("<IQ", _NUMBERS[tensor.format], offset)
        offset += _padded(size, alignment)
    return bytes(head) + bytes(_padded(len(head), alignment) - len(head))


def _padded(size: int, alignment: int) -> int:
    return -(-size // alignment) * alignment


def _is_gguf(file: BinaryIO) -> bool:
    return file.read(4) == b"GGUF"


def _refuse_inputs(path: Path, inputs: Iterable[str | os.PathLike[str]]) -> None:
    if not path.exists():
        return
    for source in inputs:
        if Path(source).exists() and path.samefile(source):
            raise FileExistsError(
                errno.EEXIST, "the file is read from while the new one is written; give another name", str(path)
            )


def _check_room(path: Path, total: int) -> None:
    free = shutil.disk_usage(Path(os.path.realpath(path)).parent).free
    if free < total:
        raise OSError(
            errno.ENOSPC,
            f"the file needs {total:,} bytes and the disk has {free:,}; free some or name another",
            str(path),
        )


def _written(file: BinaryIO, tensor: NewTensor, size: int) -> Iterable[int]:
    """Write a tensor's data; yield the size of each piece."""
    left = size
    for piece in tensor.data():
        view = _view(piece)
        left -= view.nbytes
        if left < 0:
            break
        file.write(view)
        yield view.nbytes
    if left:
        found = f"more than {size}" if left < 0 else f"{size - left}"
        raise ValueError(f"the data of tensor {tensor.name!r} has {found} bytes; expected {size}")


def _view(piece: Piece) -> memoryview:
    if isinstance(piece, (bytes, bytearray, memoryview)):
        return memoryview(piece).cast("B")
    import numpy as np

    array = np.ascontiguousarray(piece)
    if array.dtype.byteorder == ">" or (array.dtype.byteorder == "=" and not np.little_endian):
        array = array.astype(array.dtype.newbyteorder("<"))
    return array.reshape(-1).view(np.uint8).data
