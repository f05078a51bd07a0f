"""Llama 3.2 Vision (arXiv:2407.21783): between the layers of Llama 3.1 stand some that attend to pictures."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_VOCABULARY
from llamacpu.gguf.file import GGUFFile

__all__ = ["mllama"]


def mllama(file: GGUFFile, name: str) -> Config:
    """The `Config` of the text model in such a file."""
    vocab = file.metadata.integer(f"{name}.vocab_size", minimum=1, maximum=MAX_VOCABULARY)
    fields = parts.common(file, name, vocab=vocab)
    rows = next((tensor.shape[1] for tensor in file.tensors if tensor.name == "token_embd.weight"), vocab)
    crossing = _crossing(file, name, fields["layers"])
    sizes: dict[str, Any] = {"cross_layers": sorted(crossing)}
    for part in ("heads", "kv_heads", "feed_forward"):
        sizes[f"cross_{part}"] = max((fields[part][layer] for layer in crossing), default=0)
        fields[part] = [0 if layer in crossing else size for layer, size in enumerate(fields[part])]
    return Config(**fields | sizes | {"extra_embeddings": max(0, rows - vocab), "ignored_tensors": ["v.", "mm."]})


def _crossing(file: GGUFFile, name: str, layers: int) -> set[int]:
    """The layers that attend to images."""
    import numpy as np

    key = f"{name}.attention.cross_attention_layers"
    found = file.metadata.get(key)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu" or not all(0 <= at < layers for at in found):
        raise ModelError(f"metadata key {key!r} is {found!r:.60}; expected numbers of layers, from 0 to {layers - 1}")
    return {int(at) for at in found}
