"""Checkpoints of transformers to GGUF files."""

from llamacpu.tools.convert.conversion import convert

__all__ = ["convert"]
