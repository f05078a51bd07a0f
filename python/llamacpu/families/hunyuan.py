"""Hunyuan, dense and with experts (arXiv:2411.02265): norms of queries and keys after the rotation."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["hunyuan"]


def hunyuan(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    inner = fields["feed_forward"][0] if fields["experts"] else 0
    shared = file.metadata.integer(f"{name}.expert_shared_feed_forward_length", inner, maximum=MAX_WIDTH)
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "query_key_norm": parts.query_key_norm(file, fields["layers"], "rotated_head"),
            "shared_feed_forward": shared,
        }
    )
