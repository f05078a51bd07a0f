"""DeepSeekMoE (arXiv:2401.06066) and the first DeepSeek: Llama's attention, fine-grained and shared experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import shared_experts
from llamacpu.gguf.file import GGUFFile

__all__ = ["deepseek"]


def deepseek(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, expert_weights_norm=False)
    return Config(**fields | {"shared_feed_forward": shared_experts(file, name)})
