"""ChatGLM 2 and 3 and GLM 4 of 2024 (arXiv:2406.12793): half of every head rotated, and a fused gate."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["chatglm"]


def chatglm(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"gate": "fused"})
