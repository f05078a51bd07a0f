"""EXAONE 3 (arXiv:2408.03541): Llama's graph with NeoX-style rotation."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["exaone"]


def exaone(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"rope_style": "neox"})
