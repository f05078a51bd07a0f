"""ERNIE 4.5 (Baidu, 2025), dense: Llama's graph."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["ernie4_5"]


def ernie4_5(file: GGUFFile, name: str) -> Config:
    """The configuration of such a model."""
    return Config(**parts.common(file, name))
