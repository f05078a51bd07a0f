"""Qwen 3.5 (2026), dense and with experts: Qwen3-Next's layers, with the value heads in another order.

Its sections of rotated elements are for pictures: in a text, all of a token's positions are equal.
"""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.qwen3next import qwen3next
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen35"]


def qwen35(file: GGUFFile, name: str) -> Config:
    """The `Config` of these architectures."""
    return qwen3next(file, name, "interleaved")
