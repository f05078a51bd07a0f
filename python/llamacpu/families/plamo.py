"""PLaMo (Preferred Networks, 2023): Llama's blocks with networks parallel to attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["plamo"]


def plamo(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"rope_style": "neox", "parallel": True})
