"""InternVL 2 to 3.5 (arXiv:2504.10479): a vision transformer with layer scales; squares of patches become one row."""

from __future__ import annotations

from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import Activation, PictureConfig, VisionConfig, VisionSettings

__all__ = ["internvl"]


def internvl(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file, as `transformers` runs it: the class token stands first, with the first position."""
    fields = parts.common(file, kind)
    merge = file.metadata.integer("clip.vision.projector.scale_factor", 2, minimum=1, maximum=16)
    activation: Activation = "silu" if file.metadata.flag("clip.use_silu", False) else "gelu"
    native = VisionConfig(
        **fields,
        activation=activation,
        class_token="first",
        positions="fixed",
        last_norm=parts.has(file, "v.post_ln.weight"),
        layer_scale=parts.has(file, "v.blk.0.ls1.weight"),
        merge=merge,
        projector_norm="mm.model.mlp.0",
        projector_norm_kind="layer",
        projector_norm_epsilon=1e-5,
        projector=["mm.model.mlp.1", "mm.model.mlp.3"],
    )
    return VisionSettings(native, PictureConfig(**parts.projections(fields, merge)))
