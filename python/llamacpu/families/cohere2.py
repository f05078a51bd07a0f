"""Command R7B and A (Cohere, 2024): three sliding-window layers, then a full-attention layer without rotation."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["cohere2"]


def cohere2(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    fields = parts.common(file, name, norm="layer")
    window = parts.window(file, name, 0)
    local = parts.local_layers(file, name, fields["layers"], 4)
    return Config(
        **fields
        | {
            "parallel": True,
            "window": [window * near for near in local],
            "rotation": ["global" if near else "none" for near in local],
            "logit_scale": file.metadata.number(f"{name}.logit_scale", 0.0, minimum=0) or 1.0,
        }
    )
