"""Facts about a model on this machine, read from its header alone."""

from __future__ import annotations

import math
from typing import Any

from llamacpu.errors import LlamaCpuError
from llamacpu.families.memory import kv_bytes, state_bytes
from llamacpu.families.registry import config_for
from llamacpu.gguf.file import GGUFFile
from llamacpu.gguf.types import FILE_TYPES
from llamacpu.memory import available_memory
from llamacpu.store.entries import Entry, quantization, stem_of

__all__ = ["KV_BYTES", "USUAL_CONTEXT", "describe", "header_facts", "token_bytes"]

KV_BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
"""Bytes of an element in the cache of keys and values."""
USUAL_CONTEXT = 8192
"""The context for which memory is estimated if none is given, unless the model was trained for fewer tokens."""


def describe(entry: Entry, context: int | None = None, kv_type: str = "f16") -> dict[str, Any]:
    """Return plain facts for JSON; they include the problem of a file that cannot be read or run by this version."""
    facts: dict[str, Any] = {
        "name": entry.name,
        "origin": entry.origin,
        "path": str(entry.path),
        "files": len(entry.files),
        "projector": None if entry.projector is None else str(entry.projector),
        "size_bytes": entry.nbytes,
        "modified": entry.modified,
        "quantization": quantization(stem_of(entry.path)),
    }
    try:
        with GGUFFile(entry.path) as file:
            return facts | header_facts(file, context, kv_type, facts["quantization"])
    except LlamaCpuError as error:
        return facts | {"runs": False, "fits": None, "problem": str(error)}


def header_facts(file: GGUFFile, context: int | None, kv_type: str, named: str | None = None) -> dict[str, Any]:
    """Return what the header says: architecture, quantization, and the memory needed with a given context."""
    kind = file.metadata.get("general.file_type")
    weights = sum(tensor.nbytes for tensor in file.tensors)
    facts: dict[str, Any] = {
        "architecture": str(file.metadata.get("general.architecture", "")),
        "parameters": sum(math.prod(tensor.shape) for tensor in file.tensors),
        "quantization": FILE_TYPES.get(kind) or named if isinstance(kind, int) else named,
        "chat_template": bool(_text(file.metadata.get("tokenizer.chat_template"))),
        "license": _text(file.metadata.get("general.license")),
        "weight_bytes": weights,
    }
    try:
        config = config_for(file)
    except LlamaCpuError as error:
        return facts | {"runs": False, "fits": None, "problem": str(error)}
    wanted = context or min(config.context_length, USUAL_CONTEXT)
    needed = weights + kv_bytes(config, wanted, KV_BYTES[kv_type]) + state_bytes(config, wanted)
    available = available_memory()
    return facts | {
        "runs": True,
        "context": wanted,
        "context_length": config.context_length,
        "memory_bytes": needed,
        "available_bytes": available,
        "fits": None if available is None else needed <= available,
        "token_bytes": token_bytes(file, config.experts, config.experts_used),
    }


def token_bytes(file: GGUFFile, experts: int, used: int) -> int:
    """Return the bytes of weights read per token.

    Only the used experts count; a separate embedding matrix does not, because a token reads only one row of it.
    """
    names = {tensor.name for tensor in file.tensors}
    total = 0.0
    for tensor in file.tensors:
        if tensor.name == "token_embd.weight" and "output.weight" in names:
            continue
        total += tensor.nbytes * (used / experts if experts and "_exps" in tensor.name else 1)
    return int(total)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
