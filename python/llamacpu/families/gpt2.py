"""GPT-2 (Radford et al. 2019) and StarCoder (arXiv:2305.06161): learned positions, LayerNorm, ungated networks."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gpt2"]


def gpt2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    positions = {"learned_positions": True, "rope_size": 0, "rotation": ["none"] * fields["layers"]}
    return Config(**fields | positions | {"gate": "none", "activation": "gelu_tanh"})
