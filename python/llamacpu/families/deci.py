"""Llama Nemotron (arXiv:2411.19146): Llama's graph, with layers that may lack attention or feed-forward network."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["deci"]


def deci(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name, absent=True))
