"""EXAONE 4 (arXiv:2507.11407): norms after the blocks and on heads; full-attention layers have no rotation."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["exaone4"]


def exaone4(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture; small models have no windows, and rotation in every layer."""
    fields = parts.common(file, name)
    layers, window = fields["layers"], parts.window(file, name, 0)
    local = [window == 0 or near for near in parts.local_layers(file, name, layers, 4)]
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "norms": "behind",
            "query_key_norm": ["head"] * layers,
            "window": [window * near for near in local],
            "rotation": ["global" if near else "none" for near in local],
        }
    )
