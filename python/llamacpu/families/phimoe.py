"""Phi 3.5 MoE (arXiv:2404.14219): LayerNorm, biases, and experts chosen one after the other (arXiv:2409.12136)."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["phimoe"]


def phimoe(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. The key of the norms' epsilon is that of RMS norms, which these are not."""
    fields = parts.common(file, name, expert_weights_norm=False)
    window = parts.window(file, name, 0)
    return Config(
        **fields
        | {
            "norm": "layer",
            "rope_style": "neox",
            "window": [window] * fields["layers"],
            "expert_gating": "sparse_mixer",
        }
    )
