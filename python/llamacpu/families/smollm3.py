"""SmolLM 3 (Hugging Face, 2025): Llama's graph with no rotation in every fourth layer."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["smollm3"]


def smollm3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name)
    rotation = ["none" if layer % 4 == 3 else "global" for layer in range(fields["layers"])]
    return Config(**fields | {"rotation": rotation})
