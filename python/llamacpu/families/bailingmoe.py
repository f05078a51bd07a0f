"""Ling (arXiv:2503.05139): Llama's attention with fine-grained and shared experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import shared_experts
from llamacpu.gguf.file import GGUFFile

__all__ = ["bailingmoe"]


def bailingmoe(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, expert_weights_norm=False)
    return Config(**fields | {"shared_feed_forward": shared_experts(file, name)})
