"""Writing safetensors files: the length of the header (8 bytes, little-endian), the header in JSON, the tensors.

Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from llamacpu.checkpoints.safetensors import MAX_HEADER
from llamacpu.checkpoints.types import RAW
from llamacpu.files import replacing

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_safetensors"]

# NumPy has none of the other types.
_NAMES = {RAW[name]: name for name in RAW if name != "BF16" and not name.startswith("F8")}


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str], kind: str
) -> None:
    """Write arrays to a file, which takes its name when it is complete; an older file of this format is replaced.

    metadata: texts for the header. kind: what the file is, for messages ("a checkpoint"). The arrays are in the order
    of the library's own writer: by the size of their elements, then by name. Raises what `files.replacing` raises.
    """
    arrays = {
        name: np.asarray(array, order="C").astype(array.dtype.newbyteorder("<"), copy=False)
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
    with replacing(path, kind, _is_safetensors, ordinary=True) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(arrays[name].data)


def _is_safetensors(file: BinaryIO) -> bool:
    start = file.read(9)
    return int.from_bytes(start[:8], "little") <= MAX_HEADER and start[8:] == b"{"
