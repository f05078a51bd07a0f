"""OpenELM (arXiv:2404.14619): heads and widths that grow with the layer, and norms of queries and keys."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["openelm"]


def openelm(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    return Config(**fields | {"rope_style": "neox", "query_key_norm": ["head"] * fields["layers"]})
