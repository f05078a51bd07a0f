"""Idefics3 and SmolVLM (arXiv:2504.05299): SigLIP, squares of patches side by side, one matrix."""

from __future__ import annotations

from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import PictureConfig, VisionConfig, VisionSettings

__all__ = ["idefics3"]


def idefics3(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file."""
    fields = parts.common(file, kind)
    merge = file.metadata.integer("clip.vision.projector.scale_factor", minimum=1, maximum=16)
    native = VisionConfig(**fields, activation="gelu_tanh", positions="fixed", merge=merge, projector=["mm.model.fc"])
    return VisionSettings(native, PictureConfig(**parts.projections(fields, merge)))
