"""gpt-oss (arXiv:2508.10925): attention sinks, windows in every other layer, experts with clamped SwiGLU."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gpt_oss"]


def gpt_oss(file: GGUFFile, name: str) -> Config:
    """The configuration of such a model."""
    fields = parts.common(file, name, expert_weights_norm=False)
    window = parts.window(file, name, 128)
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "feed_forward_norm": "post_attention_norm",
            "window": [window * near for near in parts.local_layers(file, name, fields["layers"], 2)],
            "activation": "clamped_silu",
            "expert_gating": "softmax_selected",
        }
    )
