"""Mistral 3 and Ministral (Mistral AI, 2025): Llama's graph with YaRN and scores that grow with the position."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["mistral3"]


def mistral3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    return Config(**fields | parts.temperature(file, name, fields))
