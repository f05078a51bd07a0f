"""Qwen 1.5 and 2 with experts (arXiv:2407.10671): a shared expert weighted by its own gate."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen2moe"]


def qwen2moe(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, expert_weights_norm=False)
    shared = file.metadata.integer(
        f"{name}.expert_shared_feed_forward_length", fields["feed_forward"][0], maximum=MAX_WIDTH
    )
    return Config(**fields | {"rope_style": "neox", "shared_feed_forward": shared})
