"""Pixtral (arXiv:2410.07073) and Mistral Small 3.1: pictures of any size, two rotated coordinates, gated networks."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import Activation, PictureConfig, VisionConfig, VisionSettings

__all__ = ["pixtral"]


def pixtral(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file, whose queries and keys the converter has put in interleaved order.

    Mistral Small 3.1 normalizes the patches after the encoder and merges squares of them by a matrix.
    """
    fields = parts.common(file, kind)
    activation: Activation = "silu" if file.metadata.flag("clip.use_silu", False) else "gelu"
    merge = file.metadata.integer("clip.vision.spatial_merge_size", 1, minimum=1, maximum=16)
    merged: parts.Fields = {"last_norm": False}
    if parts.has(file, "mm.patch_merger.weight"):
        merged = {
            "last_norm_name": "mm.input_norm", "merge": merge, "merge_order": "channels", "merger": "mm.patch_merger",
        }  # fmt: skip
    elif merge > 1:
        raise ModelError(
            f"metadata key 'clip.vision.spatial_merge_size' is {merge}, and the file has no tensor "
            "mm.patch_merger.weight that merges patches; convert the model again"
        )
    native = VisionConfig(
        **fields | merged | {"image_size": 0},
        norm="rms",
        gated=True,
        activation=activation,
        first_norm=True,
        rotation="rows_first",
        rope_between=True,
        projector=["mm.1", "mm.2"],
        # The row that ends a line of patches is that of a token, [IMG_BREAK].
        ignored_tensors=["v.token_embd.img_break"],
    )
    return VisionSettings(native, PictureConfig(**parts.projections(fields, merge), any_size=True))
