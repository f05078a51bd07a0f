"""Qwen3-VL and Qwen 3.5: learned positions in a square, 2-D rotation, rows from layers in the middle (DeepStack)."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import PictureConfig, VisionConfig, VisionSettings

__all__ = ["deep_layers", "qwen3vl"]


def qwen3vl(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file."""
    fields = parts.common(file, kind)
    merge = file.metadata.integer("clip.vision.spatial_merge_size", 2, minimum=1, maximum=16)
    deepstack = deep_layers(file)
    native = VisionConfig(
        **fields | {"image_size": 0},
        activation="gelu_tanh",
        positions="corners",
        rotation="rows_first",
        rope_style="neox",
        merge=merge,
        projector=["mm.0", "mm.2"],
        deepstack=deepstack,
    )
    pictures = PictureConfig(
        **parts.projections(fields, merge) | {"width": fields["output_length"] * (1 + len(deepstack))},
        any_size=True,
        grid=True,
    )
    return VisionSettings(native, pictures)


def deep_layers(file: GGUFFile) -> list[int]:
    """The layers that give further parts of rows. Raises ModelError for a list that does not fit the layers."""
    key = "clip.vision.is_deepstack_layers"
    flags = file.metadata.get(key)
    if flags is None:
        return []
    layers = file.metadata.integer("clip.vision.block_count", minimum=1, maximum=512)
    values = flags.tolist() if hasattr(flags, "tolist") else flags
    if not isinstance(values, list) or len(values) != layers or not all(isinstance(flag, bool) for flag in values):
        raise ModelError(
            f"metadata key {key!r} is {str(values)[:60]}; expected true or false for each of {layers} layers"
        )
    return [layer for layer, flag in enumerate(values) if flag]
