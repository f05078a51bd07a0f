"""Tries a file before it is written: whether it is a model that runs here.

The file is laid out with holes where the data of the tensors will be, so it takes no room, and opened as any other.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from llamacpu import _native
from llamacpu.errors import CheckpointError, LlamaCpuError
from llamacpu.families.drafters import drafter, is_drafter
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.header import DEFAULT_ALIGNMENT
from llamacpu.gguf.writer import NewTensor, gguf_header
from llamacpu.text.tokenizer import Tokenizer
from llamacpu.tools.convert.formats import as_bytes

__all__ = ["try_model"]

_LAYER = re.compile(r"blk\.(\d+)\.")


def try_model(metadata: Mapping[str, Any], tensors: Sequence[NewTensor]) -> None:
    """Raise CheckpointError if the file would not run: missing, unused or wrongly shaped tensors, a bad tokenizer."""
    with tempfile.TemporaryDirectory(prefix="llamacpu-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.gguf"
        _write(path, metadata, tensors)
        try:
            with GGUFFile(path) as file:
                Tokenizer(file)
                plan = drafter(file) if is_drafter(file) else None
                config = config_for(file) if plan is None else plan.config
                names = {t.name: t.name for t in file.tensors} if plan is None or plan.names is None else plan.names
                map = None if plan is None else plan.map
                found = [tensor for tensor in file.tensors if tensor.name != map]
                rows = [(names[t.name], t.type, t.shape, t.file, t.offset, t.nbytes) for t in found]
                native = _native.Model(file.native_files, dict(config), rows, 1, "map")
                unused = [name for name in native.unread_tensors if not _predicts_further(name, metadata)]
                del native
        except LlamaCpuError as error:
            words = str(error).removeprefix("model.gguf: ")
            raise CheckpointError(f"the checkpoint does not give a model that runs: {words}") from None
    if unused:
        raise CheckpointError(
            f"the tensor {unused[0]!r} has no place in the model that config.json describes"
            + (f", and neither have {len(unused) - 1} others" if len(unused) > 1 else "")
        )


def _write(path: Path, metadata: Mapping[str, Any], tensors: Sequence[NewTensor]) -> None:
    head, sizes = gguf_header(metadata, tensors)
    with path.open("wb") as file:
        file.write(head)
        for tensor, size in zip(tensors, sizes, strict=True):
            end = file.tell() + -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
            if tensor.name.startswith("rope_"):  # factors, which are looked at when a model is opened
                for piece in tensor.data():
                    file.write(as_bytes(np.asarray(piece)))
            file.seek(end)
        file.truncate(file.tell())


def _predicts_further(name: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a tensor belongs to the layers after the last one that predict further tokens, which do not run."""
    architecture = metadata["general.architecture"].value
    further = metadata.get(f"{architecture}.nextn_predict_layers")
    match = _LAYER.match(name)
    if further is None or match is None:
        return False
    layers: int = metadata[f"{architecture}.block_count"].value - further.value
    return int(match[1]) >= layers
