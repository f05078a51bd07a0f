"""Falcon 7B (arXiv:2311.16867): LayerNorm, one key and value head, and ungated networks parallel to attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["falcon"]


def falcon(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. Larger models, with two norms per block (`attn_norm_2`), do not run."""
    fields = parts.common(file, name, norm="layer")
    return Config(**fields | {"rope_style": "neox", "parallel": True, "gate": "none", "activation": "gelu"})
