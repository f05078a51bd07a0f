"""AFM (Arcee AI, 2025): Llama's graph with ReLU² without gates."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["arcee"]


def arcee(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"gate": "none", "activation": "relu_squared"})
