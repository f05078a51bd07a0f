"""GLM 4 (Z.ai, 2025): norms on both sides of the blocks, and half of every head rotated."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["glm4"]


def glm4(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"norms": "both", "gate": "fused"})
