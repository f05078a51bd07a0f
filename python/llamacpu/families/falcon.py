"""Falcon (arXiv:2311.16867): LayerNorm, and ungated networks parallel to attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["falcon"]


def falcon(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. Larger models have two norms per block; `attn_norm` is that of the network."""
    fields = parts.common(file, name, norm="layer")
    switches = {"rope_style": "neox", "parallel": True, "gate": "none", "activation": "gelu"}
    if parts.has(file, "blk.0.attn_norm_2.weight"):
        switches |= {"parallel_norm": True, "attention_norm": "attn_norm_2", "feed_forward_norm": "attn_norm"}
    return Config(**fields | switches)
