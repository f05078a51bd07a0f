"""Command R and R+ (Cohere, 2024): LayerNorm, and a feed-forward network parallel to attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["command_r"]


def command_r(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    return Config(
        **fields
        | {
            "parallel": True,
            "query_key_norm": parts.query_key_norm(file, fields["layers"], "each_head"),
            "logit_scale": file.metadata.number(f"{name}.logit_scale", 0.0, minimum=0) or 1.0,
        }
    )
