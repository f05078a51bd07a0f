"""Gemma 3 (arXiv:2503.19786): SigLIP, whose patches are averaged to 256 rows that see each other in the model."""

from __future__ import annotations

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import PictureConfig, VisionConfig, VisionSettings

__all__ = ["gemma3"]

_MERGE = 4
"""Side of the squares of patches that become a row, where the file does not say: in all published models."""


def gemma3(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file."""
    fields = parts.common(file, kind)
    grid = fields["image_size"] // fields["patch_size"]
    merge = file.metadata.integer("clip.vision.projector.scale_factor", 0, minimum=0, maximum=64) or _MERGE
    if not grid or grid % merge:
        raise ModelError(f"a side of {grid} patches; expected a multiple of {merge}")
    native = VisionConfig(
        **fields,
        activation="gelu_tanh",
        positions="fixed",
        merge=merge,
        merge_order="average",
        projector_norm="mm.soft_emb_norm",
        projector_norm_epsilon=fields["norm_epsilon"],
        projector=["mm.input_projection"],
        projector_transposed=True,
    )
    return VisionSettings(native, PictureConfig(**parts.projections(fields, merge), bidirectional=True))
