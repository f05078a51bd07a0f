"""Qwen2-VL and Qwen2.5-VL (arXiv:2409.12191, arXiv:2502.13923): Qwen 2, rotated by time, row and column of pictures."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen2vl"]


def qwen2vl(file: GGUFFile, name: str) -> Config:
    """The `Config` of the text model in such a file."""
    fields = parts.common(file, name)
    key = f"{name}.rope.dimension_sections"
    sections = file.metadata.integers(key, 4, maximum=1 << 15)
    if sections[3] or 2 * sum(sections) != fields["rope_size"]:
        pairs = fields["rope_size"] // 2
        raise ModelError(f"metadata key {key!r} is {sections}; expected three numbers of pairs, {pairs} in all, and 0")
    return Config(**fields | {"rope_style": "neox", "rope_sections": sections[:3]})
