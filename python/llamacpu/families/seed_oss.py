"""Seed-OSS (ByteDance, 2025): Llama's graph with biases on queries, keys and values."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["seed_oss"]


def seed_oss(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**parts.common(file, name) | {"rope_style": "neox", "feed_forward_norm": "post_attention_norm"})
