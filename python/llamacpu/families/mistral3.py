"""Mistral 3 and Ministral (Mistral AI, 2025): Llama's graph with YaRN and scores that grow with the position."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["mistral3"]


def mistral3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    metadata = file.metadata
    fields = parts.common(file, name)
    growth = metadata.number(f"{name}.attention.temperature_scale", 0.0, minimum=0)
    length = metadata.integer(
        f"{name}.attention.temperature_length", fields["rope_original_context"], minimum=1, maximum=parts.MAX_CONTEXT
    )
    return Config(**fields | {"temperature": [growth] * fields["layers"], "temperature_length": length})
