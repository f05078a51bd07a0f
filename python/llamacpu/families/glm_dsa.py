"""GLM 5 (Zhipu AI, 2026): DeepSeek V3.2's graph; some layers see the keys that an earlier layer has chosen."""

from __future__ import annotations

from llamacpu.families.config import Config
from llamacpu.families.experts import sigmoid_experts
from llamacpu.families.latent import indexer, latent
from llamacpu.gguf.file import GGUFFile

__all__ = ["glm_dsa"]


def glm_dsa(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = latent(file, name) | sigmoid_experts(file, name)
    return Config(**fields | indexer(file, name, fields["layers"], "interleaved"))
