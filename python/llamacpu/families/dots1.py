"""dots.llm1 (arXiv:2506.05767): Qwen 3's attention with DeepSeek V3's experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import sigmoid_experts
from llamacpu.gguf.file import GGUFFile

__all__ = ["dots1"]


def dots1(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name) | sigmoid_experts(file, name)
    return Config(**fields | {"rope_style": "neox", "query_key_norm": ["head"] * fields["layers"]})
