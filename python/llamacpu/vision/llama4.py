"""Llama 4: tiles of one size, rotated by two coordinates; squares of patches become one row of the model."""

from __future__ import annotations

from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import PictureConfig, VisionConfig, VisionSettings

__all__ = ["llama4"]


def llama4(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file, as `transformers` runs it: the rows of a tile run along its rows of patches."""
    fields = parts.common(file, kind)
    merge = file.metadata.integer("clip.vision.projector.scale_factor", 2, minimum=1, maximum=16)
    native = VisionConfig(
        **fields,
        feed_forward_norm=parts.second_norm(file),
        activation="gelu",
        class_token="last",
        positions="fixed",
        first_norm=True,
        rotation="columns_first",
        rope_first=1,
        merge=merge,
        projector=["mm.model.mlp.1", "mm.model.mlp.2", "mm.model.fc"],
    )
    return VisionSettings(native, PictureConfig(**parts.projections(fields, merge)))
