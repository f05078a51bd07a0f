"""Llama 4 (Meta, 2025), Scout, Maverick and dense: chunked layers with rotation, full-attention layers without."""

from __future__ import annotations

from llamacpu.families import parts
from llamacpu.families.config import Config
from llamacpu.families.limits import MAX_CONTEXT
from llamacpu.gguf.file import GGUFFile

__all__ = ["llama4"]


def llama4(file: GGUFFile, name: str) -> Config:
    """The `Config` of this architecture.

    No standard key gives the chunk length or where scores begin to grow: both are 8192 unless llamacpu's own keys do.
    """
    metadata = file.metadata
    fields = parts.common(file, name, expert_weights_norm=False)
    layers = fields["layers"]
    # A window of 0 means that all layers have rotation and full attention.
    plain = metadata.get(f"{name}.attention.sliding_window") == 0
    chunk = metadata.integer(f"{name}.attention.chunk_size", 8192, minimum=1, maximum=MAX_CONTEXT)
    far = metadata.integer(f"{name}.attention.temperature_length", 8192, minimum=1, maximum=MAX_CONTEXT)
    growth = metadata.number(f"{name}.attention.temperature_scale", 0.1, minimum=0)
    local = [plain or near for near in parts.local_layers(file, name, layers, 4)]
    # The models with 128 experts were trained without these norms.
    normed = [near and fields["experts"] != 128 for near in local]
    return Config(
        **fields
        | {
            "rotation": ["global" if near else "none" for near in local],
            "chunk": [0 if plain or not near else chunk for near in local],
            "query_key_norm": ["unweighted" if norm else "none" for norm in normed],
            "temperature": [0.0 if near else growth for near in local],
            "temperature_length": far,
            "temperature_offset": 1,
            "expert_gating": "sigmoid",
            "expert_weights_on_input": True,
            "shared_feed_forward": fields["expert_feed_forward"] if fields["experts"] else 0,
        }
    )
