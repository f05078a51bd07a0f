"""Muse Glimmer: pictures of any size, most layers within squares of patches."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import PictureConfig, VisionConfig, VisionSettings

__all__ = ["muse_glimmer"]


def muse_glimmer(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file. Every fourth layer and the last one see the whole picture; no key says so."""
    fields = parts.common(file, kind)
    merge = file.metadata.integer("clip.vision.spatial_merge_size", 2, minimum=1, maximum=16)
    side = fields["image_size"] // fields["patch_size"]
    rows = next((tensor.shape[-1] for tensor in file.tensors if tensor.name == "v.position_embd.weight"), 0)
    table = round(rows**0.5)
    if not rows or table * table != rows:
        raise ModelError(
            f"the table of positions has {rows} rows; expected those of a square of {side} x {side} patches"
        )
    layers = fields["layers"]
    whole = [(layer + 1) % 4 == 0 or layer + 1 == layers for layer in range(layers)]
    native = VisionConfig(
        **fields | {"image_size": 0},
        positions="transposed",
        first_norm=True,
        rotation="columns_first",
        rope_first=1,
        window=[0 if all_patches else table for all_patches in whole],
        merge=merge,
        merge_order="channels",
        projector=["mm.0", "mm.1", "mm.2"],
    )
    return VisionSettings(native, PictureConfig(**parts.projections(fields, merge), any_size=True))
