"""The parts of a configuration that encoders have in common."""

from __future__ import annotations

from typing import Any

from llamacpu.families import parts
from llamacpu.gguf.file import GGUFFile

__all__ = ["encoder"]


def encoder(file: GGUFFile, name: str) -> dict[str, Any]:
    """The fields of an encoder like BERT: bidirectional, with norms after residual additions and the embedding."""
    fields = parts.common(file, name, norm="layer", expert_weights_norm=False)
    shapes = {tensor.name: tensor.shape for tensor in file.tensors}
    types = shapes.get("token_types.weight", (0, 0))
    return (
        fields
        | parts.classes(file)
        | {
            "causal": False,
            "output": False,
            "output_norm": False,
            "norms": "stream",
            "embedding_norm": True,
            "token_types": types[1] if len(types) > 1 else 1,
        }
    )
