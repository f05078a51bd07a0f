"""Jais 2 (Inception, 2025): LayerNorm, biases, rotated positions, and squared ReLU without gates."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["jais2"]


def jais2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    return Config(**fields | {"rope_style": "neox", "gate": "none", "activation": "relu_squared"})
