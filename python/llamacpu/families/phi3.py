"""Phi 3, 3.5 and 4 (arXiv:2404.14219): fused projections, and LongRoPE for the long variants."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["phi3"]


def phi3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    window = parts.window(file, name, 0)
    return Config(**fields | {"rope_style": "neox", "gate": "fused", "window": [window] * fields["layers"]})
