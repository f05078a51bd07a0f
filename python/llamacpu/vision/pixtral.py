"""Pixtral (arXiv:2410.07073): pictures of any size, rotated by two coordinates, gated networks."""

from __future__ import annotations

from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import Activation, PictureConfig, VisionConfig, VisionSettings

__all__ = ["pixtral"]


def pixtral(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file, whose queries and keys the converter has put in interleaved order."""
    fields = parts.common(file, kind)
    activation: Activation = "silu" if file.metadata.flag("clip.use_silu", False) else "gelu"
    native = VisionConfig(
        **fields | {"image_size": 0},
        norm="rms",
        gated=True,
        activation=activation,
        first_norm=True,
        last_norm=False,
        rotation="rows_first",
        rope_between=True,
        projector=["mm.1", "mm.2"],
        # The row that ends a line of patches is that of a token, [IMG_BREAK].
        ignored_tensors=["v.token_embd.img_break"],
    )
    return VisionSettings(native, PictureConfig(**parts.projections(file, fields), any_size=True))
