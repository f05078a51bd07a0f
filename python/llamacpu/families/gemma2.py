"""Gemma 2 (arXiv:2408.00118): sliding windows in every other layer, soft caps, norms on both sides of the blocks."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gemma2"]


def gemma2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    metadata = file.metadata
    fields = parts.common(file, name)
    layers = fields["layers"]
    window = parts.window(file, name, 4096)
    return Config(
        **fields
        | parts.gemma(fields)
        | {
            "norms": "both",
            "window": [window * local for local in parts.local_layers(file, name, layers, 2)],
            "attention_scale": parts.gemma_attention_scale(fields, largest=46),
            "attention_soft_cap": metadata.number(f"{name}.attn_logit_softcapping", 50.0, minimum=0),
            "logit_soft_cap": metadata.number(f"{name}.final_logit_softcapping", 30.0, minimum=0),
        }
    )
