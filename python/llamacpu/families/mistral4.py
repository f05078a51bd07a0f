"""Mistral 4 (Mistral AI, 2026): DeepSeek's graph with softmax experts and scores that grow with the position."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.latent import latent
from llamacpu.families.parts import temperature
from llamacpu.gguf.file import GGUFFile

__all__ = ["mistral4"]


def mistral4(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = latent(file, name)
    return Config(**fields | temperature(file, name, fields))
