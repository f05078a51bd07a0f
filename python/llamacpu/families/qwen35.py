"""Qwen 3.5 (2026), dense and with experts: Qwen3-Next, whose value heads are counted within those of a key head.

Pictures are placed by time, row and column, as by Qwen3-VL; in a text, all of a token's positions are equal.
"""

from __future__ import annotations

import dataclasses

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.qwen3next import qwen3next
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen35"]


def qwen35(file: GGUFFile, name: str) -> Config:
    """The `Config` of these architectures."""
    config = qwen3next(file, name, "interleaved")
    return dataclasses.replace(config, **_sections(file, name, config.rope_size // 2))


def _sections(file: GGUFFile, name: str, pairs: int) -> parts.Fields:
    """How many of the pairs time, row and column turn, in turns: at most what the file says. Nothing where it does not
    say that of all pairs: the model then sees no pictures."""
    key = f"{name}.rope.dimension_sections"
    if key not in file.metadata:
        return {}
    said = file.metadata.integers(key, 4, maximum=1 << 15)
    if said[3] or sum(said) < pairs:
        return {}
    # The first pair is turned by time, the second by row, the third by column, and so on.
    rows, columns = min(said[1], (pairs + 1) // 3), min(said[2], pairs // 3)
    return {"rope_sections": [pairs - rows - columns, rows, columns], "rope_sections_alternate": True}
