"""Gemma (arXiv:2403.08295): scaled embeddings and GELU gates; norm weights are stored with 1 added."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gemma"]


def gemma(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    return Config(**fields | parts.gemma(fields))
