"""StarCoder 2 (arXiv:2402.19173): LayerNorm, biases, and GELU without gates."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["starcoder2"]


def starcoder2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    window = parts.window(file, name, 0)
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "gate": "none",
            "activation": "gelu_tanh",
            "window": [window] * fields["layers"],
        }
    )
