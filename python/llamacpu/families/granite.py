"""Granite, dense and with experts (arXiv:2407.13739): scale factors of embeddings, scores, residuals and logits."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_WIDTH
from llamacpu.gguf.file import GGUFFile

__all__ = ["granite"]


def granite(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    shared = file.metadata.integer(f"{name}.expert_shared_feed_forward_length", 0, maximum=MAX_WIDTH)
    return Config(**fields | parts.granite_scales(file, name) | {"shared_feed_forward": shared})
