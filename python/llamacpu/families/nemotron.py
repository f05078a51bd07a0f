"""Nemotron 4 (arXiv:2402.16819): LayerNorm with weights stored with 1 added, and ReLU² without gates."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["nemotron"]


def nemotron(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    return Config(**fields | {"rope_style": "neox", "gate": "none", "activation": "relu_squared"})
