"""K-EXAONE (LG, 2025): EXAONE 4's attention with norms before the blocks, and DeepSeek V3's experts."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.experts import sigmoid_experts
from llamacpu.gguf.file import GGUFFile

__all__ = ["exaone_moe"]


def exaone_moe(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture. Only the layers with a window have rotated positions."""
    fields = parts.common(file, name)
    fields |= sigmoid_experts(file, name) | parts.without_predictors(file, name, fields)
    layers, window = fields["layers"], parts.window(file, name, 128)
    local = parts.local_layers(file, name, layers, 4)
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "query_key_norm": ["head"] * layers,
            "window": [window * near for near in local],
            "rotation": ["global" if near else "none" for near in local],
        }
    )
