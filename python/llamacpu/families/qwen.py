"""The first Qwen (arXiv:2309.16609): Llama's blocks with biases of queries, keys and values."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["qwen"]


def qwen(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. Its `feed_forward_length` counts the gate and the up projection together."""
    fields = parts.common(file, name)
    inner = [width // 2 for width in fields["feed_forward"]]
    return Config(**fields | {"rope_style": "neox", "feed_forward": inner})
