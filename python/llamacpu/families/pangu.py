"""Pangu Embedded (arXiv:2505.22375): Llama's blocks with biases of attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["pangu"]


def pangu(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"rope_style": "neox"})
