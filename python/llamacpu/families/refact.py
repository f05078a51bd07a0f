"""Refact (Small Cloud AI, 2023): Llama's blocks with one key and value head, and linear biases (ALiBi)."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["refact"]


def refact(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    return Config(**fields | parts.linear_biases(fields["layers"], 8.0))
