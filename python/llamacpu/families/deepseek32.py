"""DeepSeek V3.2 (DeepSeek-AI, 2025): DeepSeek V3 with sparse attention over the keys that an indexer chooses."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.latent import indexer, latent
from llamacpu.gguf.file import GGUFFile

__all__ = ["deepseek32"]


def deepseek32(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = latent(file, name)
    return Config(**fields | indexer(file, name, fields["layers"], "neox"))
