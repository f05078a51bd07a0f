"""Llama 3.2 Vision, as Ollama lays out its files: tiles that attend to each other, states for cross-attention."""

from __future__ import annotations

import numpy as np

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import PictureConfig, VisionConfig, VisionSettings

__all__ = ["mllama"]

_ROW_MULTIPLE = 8


def mllama(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file. The normalization is that of CLIP; no key says so."""
    metadata = file.metadata
    name = "mllama.vision"
    width = metadata.integer(f"{name}.embedding_length", minimum=1, maximum=parts.MAX_WIDTH)
    tiles = metadata.integer(f"{name}.max_num_tiles", 4, minimum=1, maximum=64)
    layers = metadata.integer(f"{name}.block_count", minimum=1, maximum=512)
    arrangements = next((t.shape[-1] for t in file.tensors if t.name == "v.tile_position_embd.weight"), 0)
    fields: parts.Fields = {
        "kind": kind,
        "image_size": metadata.integer(f"{name}.image_size", minimum=1, maximum=parts.MAX_SIDE),
        "patch_size": metadata.integer(f"{name}.patch_size", minimum=1, maximum=parts.MAX_SIDE),
        "output_length": metadata.integer("mllama.embedding_length", minimum=1, maximum=parts.MAX_WIDTH),
    }
    names: parts.Fields = {
        "attention_norm": "attn_norm",
        "attention_output": "attn_output",
        "feed_forward_norm": "ffn_norm",
    }
    if parts.has(file, "v.blk.0.ln1.weight"):
        names = {}
    native = VisionConfig(
        **fields,
        **names,
        embedding_length=width,
        layers=layers,
        heads=parts.heads_of(file, f"{name}.attention.head_count", width),
        feed_forward=metadata.integer(f"{name}.feed_forward_length", minimum=1, maximum=parts.MAX_WIDTH),
        norm_epsilon=metadata.number(f"{name}.attention.layer_norm_epsilon", 1e-5, above=0.0),
        class_token="first",
        positions="fixed",
        first_norm=True,
        joint_tiles=tiles,
        arrangements=arrangements,
        row_multiple=_ROW_MULTIPLE,
        global_layers=metadata.integer(f"{name}.global.block_count", minimum=0, maximum=512),
        kept_inputs=_kept(file, f"{name}.intermediate_layers_indices", layers),
        class_output=True,
        projector=["mm.0"],
    )
    pictures = PictureConfig(
        kind=kind,
        image_size=fields["image_size"],
        patch_size=fields["patch_size"],
        merge=1,
        width=fields["output_length"],
        cross=True,
        max_tiles=tiles,
        class_rows=1,
    )
    return VisionSettings(native, pictures)


def _kept(file: GGUFFile, key: str, layers: int) -> list[int]:
    """The layers whose inputs the projector sees; their number stands for the output of the last one."""
    found = file.metadata.get(key)
    if isinstance(found, np.ndarray) and found.dtype.kind in "iu":
        kept = [int(layer) for layer in found]
        if kept == sorted(set(kept)) and all(0 <= layer <= layers for layer in kept):
            return kept
    raise ModelError(f"metadata key {key!r} is {found!r:.60}; expected ascending numbers of layers up to {layers}")
