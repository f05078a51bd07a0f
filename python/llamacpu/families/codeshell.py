"""CodeShell (arXiv:2403.15747): LayerNorm, biases, rotated positions, and GELU without gates."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["codeshell"]


def codeshell(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    return Config(**fields | {"rope_style": "neox", "gate": "none", "activation": "gelu_tanh"})
