"""ERNIE 4.5 (Baidu, 2025), dense and with experts: Llama's graph; a bias affects the choice of experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["ernie4_5"]


def ernie4_5(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields, shared = parts.common(file, name), file.metadata.integer(f"{name}.expert_shared_count", 0, maximum=64)
    return Config(**fields | {"shared_feed_forward": shared * fields["expert_feed_forward"]})
