"""EmbeddingGemma (arXiv:2509.20354): Gemma 3 with bidirectional attention."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.gemma3 import gemma3
from llamacpu.gguf.file import GGUFFile

__all__ = ["gemma_embedding"]


def gemma_embedding(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    return Config(**dict(gemma3(file, name)) | {"causal": False, "output": False, "ignored_tensors": ["output.weight"]})
