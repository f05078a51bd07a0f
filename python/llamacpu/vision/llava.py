"""LLaVA 1.5 and 1.6 (arXiv:2310.03744): CLIP without its last layers, and a network of two matrices."""

from __future__ import annotations

from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import Activation, PictureConfig, VisionConfig, VisionSettings

__all__ = ["llava"]


def llava(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file: `clip.vision.block_count` layers, of which the converter left out those not used."""
    fields = parts.common(file, kind)
    metadata = file.metadata
    activation: Activation = "gelu_sigmoid"
    if metadata.flag("clip.use_gelu", False):
        activation = "gelu_tanh"
    elif metadata.flag("clip.use_silu", False):
        activation = "silu"
    layers = parts.layers_in(file, fields["layers"])
    class_token = parts.has(file, "v.class_embd")
    native = VisionConfig(
        **fields | {"layers": layers},
        activation=activation,
        class_token="first" if class_token else "none",
        positions="fixed",
        first_norm=parts.has(file, "v.pre_ln.weight"),
        last_norm=False,
        projector=["mm.0", "mm.2"],
        ignored_tensors=["v.post_ln.", "model.image_newline"],
    )
    return VisionSettings(native, PictureConfig(**parts.projections(fields)))
