"""Qwen 3, dense and with experts (arXiv:2505.09388): norms on every head of queries and keys."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen3"]


def qwen3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name) | parts.classes(file)
    return Config(**fields | {"rope_style": "neox", "query_key_norm": ["head"] * fields["layers"]})
