"""BLOOM (arXiv:2211.05100): linear biases of attention (ALiBi), LayerNorm, and a norm of the embedding."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["bloom"]


def bloom(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    plain = {"gate": "none", "activation": "gelu_tanh", "embedding_norm": True}
    return Config(**fields | parts.linear_biases(fields["layers"], 8.0) | plain)
