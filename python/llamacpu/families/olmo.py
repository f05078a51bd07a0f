"""OLMo (arXiv:2402.00838): LayerNorm without weights, and a limit of queries, keys and values in some models."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["olmo"]


def olmo(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    limit = file.metadata.number(f"{name}.attention.clamp_kqv", 0.0, minimum=0)
    return Config(**fields | {"norm_weights": False, "query_key_value_limit": limit})
