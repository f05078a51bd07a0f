"""EuroBERT (arXiv:2503.05500): Llama's graph with bidirectional attention."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["eurobert"]


def eurobert(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    ahead = {"causal": False, "output": False, "ignored_tensors": ["output."]}
    return Config(**parts.common(file, name) | ahead | {"rope_style": "neox"})
