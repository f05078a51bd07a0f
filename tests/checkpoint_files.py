"""Writes checkpoints for the tests: safetensors files, with headers as wrong as a test wants them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMES = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "uint32": "U32", "int32": "I32",
    "uint64": "U64", "int64": "I64", "float16": "F16", "float32": "F32", "float64": "F64",
}  # fmt: skip
Stored = NDArray[Any] | tuple[str, NDArray[Any]]


def safetensors_bytes(tensors: Mapping[str, Stored], metadata: Mapping[str, str] | None = None) -> bytes:
    """A safetensors file; a tensor is an array, or the name of a type and the array of its bits."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    data = b""
    for name, stored in tensors.items():
        kind, array = stored if isinstance(stored, tuple) else (NAMES[stored.dtype.name], stored)
        header[name] = {
            "dtype": kind,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + array.nbytes],
        }
        data += array.tobytes()
    return with_header(header, data)


def with_header(header: Any, data: bytes) -> bytes:
    """A safetensors file of a header (an object, or its bytes) and the bytes that follow it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def write_sharded(folder: Path, shards: list[Mapping[str, Stored]], **index: Any) -> None:
    """A checkpoint of several files and their index; `index` replaces fields of the index."""
    table = {}
    for number, tensors in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        (folder / file).write_bytes(safetensors_bytes(tensors))
        table |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table} | index))


def bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of floats, the bits of BF16; the lower ones must be zero."""
    bits = values.view(np.uint32)
    assert not (bits & 0xFFFF).any()
    return (bits >> 16).astype(np.uint16)
