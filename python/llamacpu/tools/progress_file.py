"""Files that a measurement is continued from after an interruption.

    magic, uint32 length of the header, the header (JSON: kind, subject, arrays as name -> type and length), then the
    arrays one after the other, little-endian

The subject says what was measured: a file is continued only by the same measurement of the same model and text.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from llamacpu.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["load", "save"]

_MAGIC = b"llamacpu measurement 1\n"
_TYPES = ("<f8", "<f4", "<i8")
_LONGEST_HEADER = 64 << 20


def save(
    path: str | os.PathLike[str], kind: str, subject: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
) -> None:
    """Write the state of a measurement. Raises OSError, FileExistsError for a file of another kind."""
    values = {name: np.ascontiguousarray(value, value.dtype.newbyteorder("<")) for name, value in arrays.items()}
    table = {name: [value.dtype.str, value.size] for name, value in values.items()}
    header = json.dumps({"kind": kind, "subject": dict(subject), "arrays": table}).encode()
    with replacing(path, "a measurement", _is_ours) as file:
        file.write(_MAGIC + struct.pack("<I", len(header)) + header)
        for value in values.values():
            file.write(value.data)


def load(path: str | os.PathLike[str], kind: str, subject: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
    """The arrays of a state; None if there is no such file.

    Raises ValueError for a file that is damaged, is of another kind, or belongs to another subject.
    """
    name = os.fspath(path)
    if not Path(path).exists():
        return None
    with Path(path).open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            raise ValueError(f"{name} is not a measurement that can be continued; name another file")
        header, size = _header(file, name), os.fstat(file.fileno()).st_size
        if header["kind"] != kind:
            raise ValueError(f"{name} is the state of another measurement ({header['kind']!s:.40}); expected {kind}")
        for key, value in subject.items():
            if header["subject"].get(key) != value:
                raise ValueError(
                    f"{name} was measured with another {key} ({header['subject'].get(key)!s:.40}; now {value!s:.40}); "
                    f"name another file, or delete it to begin again"
                )
        lengths = [np.dtype(dtype).itemsize * length for dtype, length in header["arrays"].values()]
        if file.tell() + sum(lengths) != size:
            raise ValueError(f"{name} is damaged: {size} bytes; expected {file.tell() + sum(lengths)}. Delete it")
        return {
            key: np.frombuffer(file.read(length), dtype).copy()
            for (key, (dtype, _)), length in zip(header["arrays"].items(), lengths, strict=True)
        }


def _header(file: BinaryIO, name: str) -> dict[str, Any]:
    """The header of a state, checked for its types."""
    try:
        (length,) = struct.unpack("<I", file.read(4))
        if length > min(_LONGEST_HEADER, os.fstat(file.fileno()).st_size):
            raise ValueError("too long")
        header = json.loads(file.read(length).decode())
        arrays = header["arrays"]
        fine = isinstance(header["kind"], str) and isinstance(header["subject"], dict) and isinstance(arrays, dict)
        fine = fine and all(
            len(entry) == 2 and entry[0] in _TYPES and type(entry[1]) is int and 0 <= entry[1] < 1 << 48
            for entry in arrays.values()
        )
    except (ValueError, KeyError, TypeError, struct.error, RecursionError):
        fine, header = False, {}
    if not fine:
        raise ValueError(f"{name} is damaged: its header cannot be read. Delete it to begin again")
    return dict(header)


def _is_ours(file: BinaryIO) -> bool:
    return file.read(len(_MAGIC)) == _MAGIC
