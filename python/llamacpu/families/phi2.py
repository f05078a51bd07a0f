"""Phi 1, 1.5 and 2 (arXiv:2309.05463): LayerNorm, biases, and ungated networks parallel to attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["phi2"]


def phi2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    return Config(**fields | {"rope_style": "neox", "parallel": True, "gate": "none", "activation": "gelu_tanh"})
