"""gpt-oss (arXiv:2508.10925): attention sinks, sliding windows in every other layer, experts with clamped SwiGLU."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["gpt_oss"]


def gpt_oss(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture.

    The published models, recognized by an original context of 4096 tokens, have a YaRN ramp that begins and ends
    between pairs (`truncate: false`). Converters write no key for it; a key of llamacpu's own may set it.
    """
    fields = parts.common(file, name, expert_weights_norm=False)
    window = parts.window(file, name, 128)
    whole = file.metadata.flag(f"{name}.rope.scaling.yarn_truncate", fields["rope_original_context"] != 4096)
    return Config(
        **fields
        | {
            "rope_style": "neox",
            "yarn_truncate": whole,
            "feed_forward_norm": "post_attention_norm",
            "window": [window * near for near in parts.local_layers(file, name, fields["layers"], 2)],
            "activation": "clamped_silu",
            "expert_gating": "softmax_selected",
        }
    )
