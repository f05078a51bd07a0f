"""Tiny checkpoints of every family, written without torch: configuration, tokenizer and made-up weights.

`golden/converted.json.gz` has their configurations, the shapes of their tensors and their tokenizers, as transformers
writes them, and the digests of the files that llama.cpp's converter makes of them (`golden/make_converted.py`).
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from checkpoint_files import safetensors_bytes

GOLDEN = Path(__file__).parent / "golden" / "converted.json.gz"


def load() -> dict[str, Any]:
    """The stored facts: `models` by name, `tokenizers` by name."""
    facts: dict[str, Any] = json.loads(gzip.decompress(GOLDEN.read_bytes()))
    return facts


def weights(name: str, shape: list[int], kind: str) -> Any:
    """Numbers that depend on the name alone, the same on every machine, in one of the types of safetensors."""
    count = int(np.prod(shape, dtype=np.int64))
    state = (np.arange(count, dtype=np.uint64) + np.uint64(zlib.crc32(name.encode()))) * np.uint64(2654435761)
    if kind == "U8":
        codes: NDArray[Any] = ((state >> np.uint64(13)) & np.uint64(255)).astype(np.uint8).reshape(shape)
        # Scales are exponents; few of them give numbers that a model can compute with.
        return codes if not name.endswith("_scales") else np.uint8(118) + codes % np.uint8(8)
    values = ((state >> np.uint64(13)) % np.uint64(4001)).astype(np.float32) / np.float32(5000) - np.float32(0.4)
    array = values.reshape(shape)
    if kind == "BF16":
        bits: NDArray[Any] = (array.view(np.uint32) >> 16).astype(np.uint16)
        return "BF16", bits
    if kind == "BOOL":
        return array > 0
    return array.astype({"F32": np.float32, "F16": np.float16, "I64": np.int64}[kind])


def write_checkpoint(folder: Path, model: dict[str, Any], tokenizers: dict[str, dict[str, str]]) -> Path:
    """Write a stored model's checkpoint into a folder, which is made."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model["config"]), encoding="utf-8")
    tensors = {name: weights(name, shape, kind) for kind, shape, names in model["tensors"] for name in names}
    for name, values in model.get("values", {}).items():
        tensors[name] = np.array(values, np.int64 if all(isinstance(value, int) for value in values) else np.float32)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(dict(sorted(tensors.items()))))
    for name, text in {**tokenizers[model["tokenizer"]], **model.get("files", {})}.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(base64.b64decode(text[7:]) if text.startswith("base64:") else text.encode())
    return folder
