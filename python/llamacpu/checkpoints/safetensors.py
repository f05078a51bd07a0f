"""Reading the header of a safetensors file: 8 bytes of length, JSON, then the bytes of the tensors without gaps.

Format: https://github.com/huggingface/safetensors
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llamacpu.checkpoints.json_files import parse_object
from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import StoredTensor
from llamacpu.checkpoints.types import RAW
from llamacpu.errors import CheckpointError

__all__ = ["read_safetensors"]

MAX_HEADER = 100_000_000  # as in the reference implementation
MAX_DIMENSIONS = 16
MAX_ELEMENTS = 1 << 60


def read_safetensors(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors of a file, in the order of the header, and the texts of its `__metadata__`.

    Raises CheckpointError if the file is not a whole and valid safetensors file: the tensors must fill the space
    after the header exactly, without overlapping.
    """
    source = Source(path)
    if source.size < 10:
        raise CheckpointError(f"{path.name}: {source.size} bytes are too few for a safetensors file")
    head = source.read(0, min(source.size, 32))
    length = int.from_bytes(head[:8], "little")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path.name}: a Git LFS pointer; run `git lfs pull` to get the file it stands for")
    if head[8:9] != b"{" or length > MAX_HEADER:
        raise CheckpointError(
            f"{path.name}: not a safetensors file; expected a header's length (at most {MAX_HEADER} bytes) and '{{'"
        )
    if 8 + length > source.size:
        raise CheckpointError(
            f"{path.name}: the header has {length} bytes, but the file only {source.size}; it was not copied whole"
        )
    header = parse_object(source.read(8, length), f"{path.name}: header", unique=True)
    metadata = _metadata(header.pop("__metadata__", {}), path.name)
    start = 8 + length
    tensors = {name: _tensor(name, entry, source, start) for name, entry in header.items()}
    _check_cover(tensors, source, start)
    return tensors, metadata


def _metadata(value: Any, file: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise CheckpointError(f"{file}: __metadata__ of the header is not a table of texts")
    return value


def _tensor(name: str, entry: Any, source: Source, start: int) -> StoredTensor:
    where = f"{source.name}: tensor {name!r:.120}"
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{where}: expected an object of dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in RAW:
        raise CheckpointError(f"{where}: the type {dtype!r:.40} is not supported; expected one of {', '.join(RAW)}")
    if not _are_sizes(shape) or len(shape) > MAX_DIMENSIONS or math.prod(max(d, 1) for d in shape) > MAX_ELEMENTS:
        raise CheckpointError(f"{where}: {shape!r:.80} is not a possible shape")
    if not _are_sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= source.size - start:
        raise CheckpointError(
            f"{where}: its bytes {offsets!r:.80} lie outside the {source.size - start} bytes after the header; "
            "the file is damaged or was not copied whole"
        )
    expected = math.prod(shape) * RAW[dtype].itemsize
    if offsets[1] - offsets[0] != expected:
        raise CheckpointError(
            f"{where}: {offsets[1] - offsets[0]} bytes; {dtype} {tuple(shape)} takes {expected}: the header is damaged"
        )
    return StoredTensor(name, tuple(shape), dtype, source, start + offsets[0])


def _are_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _check_cover(tensors: dict[str, StoredTensor], source: Source, start: int) -> None:
    end = start
    # Those without elements first among those that begin at the same byte.
    for tensor in sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.size)):
        if tensor.offset != end:
            what = "overlaps another" if tensor.offset < end else "follows a gap"
            raise CheckpointError(f"{source.name}: tensor {tensor.name!r:.120} {what}: the header is damaged")
        end += tensor.size * RAW[tensor.dtype].itemsize
    if end != source.size:
        raise CheckpointError(f"{source.name}: {source.size - end} bytes follow the last tensor; the file is damaged")
