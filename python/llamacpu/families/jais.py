"""Jais (arXiv:2308.16149): linear biases of attention (ALiBi), LayerNorm, and scores divided by the head size."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["jais"]


def jais(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    largest = file.metadata.number(f"{name}.attention.max_alibi_bias", 0.0, minimum=0)
    return Config(
        **fields | parts.linear_biases(fields["layers"], largest) | {"attention_scale": 1 / fields["key_size"]}
    )
