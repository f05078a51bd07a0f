"""Muse Glimmer (Meta, 2026): gated attention, windows with rotated positions, full layers without."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.gguf.file import GGUFFile

__all__ = ["muse_glimmer"]


def muse_glimmer(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture."""
    number = file.metadata.number
    fields = parts.common(file, name)
    layers = fields["layers"]
    size = parts.window(file, name)
    local = [size > 0 and near for near in parts.local_layers(file, name, layers, 4)]
    base = number(f"{name}.rope.freq_base_swa", 0.0, minimum=0)
    turned = "local" if base and base != fields["rope_base"] else "global"
    return Config(
        **fields
        | {
            "embedding_norm": True,
            "embedding_norm_weights": False,
            "norms": "both",
            # No key says so: the reference has it in its code.
            "output_norm_epsilon": 1e-8,
            "query_key_norm": ["head"] * layers,
            "attention_gate": "own",
            "window": [size * near for near in local],
            "rotation": [turned if near else "none" for near in local],
            "rope_local_base": base,
            "logit_scale": number(f"{name}.logit_scale", above=0),
            "logit_soft_cap": number(f"{name}.final_logit_softcapping", 0.0, minimum=0),
        }
    )
