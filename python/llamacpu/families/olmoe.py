"""OLMoE (arXiv:2409.02060): experts, and norms over the full width of queries and keys."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["olmoe"]


def olmoe(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, expert_weights_norm=False)
    return Config(**fields | {"rope_style": "neox", "query_key_norm": ["width"] * fields["layers"]})
