"""Qwen 2 and 2.5 (arXiv:2407.10671): biases on queries, keys and values, which the file contains."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen2"]


def qwen2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. Windows in the metadata belong to variants that do not use them."""
    return Config(**parts.common(file, name) | {"rope_style": "neox"})
