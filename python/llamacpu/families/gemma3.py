"""Gemma 3 (arXiv:2503.19786): five sliding-window layers with their own rotation, then a full-attention layer."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gemma3"]


def gemma3(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    metadata = file.metadata
    fields = parts.common(file, name)
    window = parts.window(file, name, 1024)
    local = [window > 0 and near for near in parts.local_layers(file, name, fields["layers"], 6)]
    return Config(
        **fields
        | parts.gemma(fields)
        | {
            "norms": "both",
            "query_key_norm": ["head"] * fields["layers"],
            "window": [window * near for near in local],
            "rotation": ["local" if near else "global" for near in local],
            "rope_local_base": metadata.number(f"{name}.rope.freq_base_swa", 10000.0, above=0),
            "attention_scale": parts.gemma_attention_scale(fields, largest=62),
            "logit_soft_cap": metadata.number(f"{name}.final_logit_softcapping", 0.0, minimum=0),
        }
    )
