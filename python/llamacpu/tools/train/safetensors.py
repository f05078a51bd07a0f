"""A small writer and reader of safetensors files, for adapters and checkpoints of our own making.

Layout: the length of the header (8 bytes, little-endian), the header (JSON: name to dtype, shape and place), the data.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from llamacpu.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["is_safetensors", "read", "write"]

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1"}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_LONGEST_HEADER = 100_000_000


def write(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], kind: str
) -> None:
    """Write arrays to a file, which takes its name when it is complete; an older file of this format is replaced.

    metadata: texts for the header. kind: what the file is, for messages ("a checkpoint"). The arrays are in the order
    of the library's own writer: by the size of their elements, then by name. Raises what `files.replacing` raises.
    """
    arrays = {
        name: np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        for name, array in tensors.items()
    }
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    order = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name))
    end = 0
    for name in order:
        array = arrays[name]
        begin, end = end, end + array.nbytes
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path, kind, is_safetensors, ordinary=True) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            file.write(arrays[name].data)


def is_safetensors(file: BinaryIO) -> bool:
    """Whether an open file begins as a safetensors file does."""
    start = file.read(9)
    return len(start) == 9 and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER and start[8:] == b"{"


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """The arrays of a file by name, and its metadata.

    Raises ValueError for anything that is not a complete safetensors file with elements of these types; OSError if it
    cannot be read. No array takes more memory than the file has bytes.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not is_safetensors(file):
            raise ValueError("it is not a safetensors file")
        file.seek(0)
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError("it ends within its header")
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            raise ValueError("its header is not valid JSON") from None
        if not isinstance(header, dict):
            raise ValueError("its header is no object")
        metadata = header.pop("__metadata__", {})
        tensors = {name: _array(file, name, entry, 8 + length, size) for name, entry in header.items()}
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are no object")
    return tensors, {str(key): str(value) for key, value in metadata.items()}


def _array(file: BinaryIO, name: str, entry: Any, offset: int, size: int) -> NDArray[Any]:
    try:
        dtype, shape, (begin, end) = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"], entry["data_offsets"]
        whole = all(type(number) is int and number >= 0 for number in (begin, end, *shape))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole or end < begin or math.prod(shape) * dtype.itemsize != end - begin:
        raise ValueError(f"the entry of tensor {name[:80]!r} in its header is not valid")
    if offset + end > size:
        raise ValueError(f"it ends before the end of tensor {name[:80]!r}")
    file.seek(offset + begin)
    return np.frombuffer(bytearray(file.read(end - begin)), dtype).reshape(shape)
