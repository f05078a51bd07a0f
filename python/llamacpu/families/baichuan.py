"""Baichuan (arXiv:2309.10305): Llama's blocks; the model of 13 billion parameters has linear biases (ALiBi)."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["baichuan"]


def baichuan(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. The larger model, recognized by its layer count, has no rotation."""
    fields = parts.common(file, name)
    return Config(**fields | (parts.linear_biases(fields["layers"], 8.0) if fields["layers"] == 40 else {}))
