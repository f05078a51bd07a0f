"""DBRX (Databricks, 2024): experts, LayerNorm without biases, and a limit of queries, keys and values."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["dbrx"]


def dbrx(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    limit = file.metadata.number(f"{name}.attention.clamp_kqv", 0.0, minimum=0)
    switches = {"rope_style": "neox", "feed_forward_norm": "attn_output_norm", "query_key_value_limit": limit}
    return Config(**fields | switches)
