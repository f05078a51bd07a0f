"""Orion (arXiv:2401.12246): Llama's graph with LayerNorm."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["orion"]


def orion(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name, norm="layer") | {"rope_style": "neox"})
