"""MiniMax M2 (MiniMax, 2025): experts with logistic scores, and norms over the full width of queries and keys."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import sigmoid_experts
from llamacpu.gguf.file import GGUFFile

__all__ = ["minimax_m2"]


def minimax_m2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name) | sigmoid_experts(file, name)
    return Config(**fields | {"rope_style": "neox", "query_key_norm": ["width"] * fields["layers"]})
