"""Qwen2-VL (arXiv:2409.12191) and Qwen2.5-VL (arXiv:2502.13923): pictures of any size, rotated by two coordinates."""

from __future__ import annotations

from llamacpu.gguf.file import GGUFFile
from llamacpu.vision import parts
from llamacpu.vision.config import Activation, PictureConfig, VisionConfig, VisionSettings

__all__ = ["qwen2vl"]

_WINDOW_PIXELS = 112


def qwen2vl(file: GGUFFile, kind: str) -> VisionSettings:
    """The encoder of such a file: Qwen2.5-VL has gated networks, and windows in most layers."""
    fields = parts.common(file, kind)
    metadata = file.metadata
    merge = metadata.integer("clip.vision.spatial_merge_size", 2, minimum=1, maximum=16)
    newer = kind == "qwen2.5vl_merger"
    period = metadata.integer("clip.vision.n_wa_pattern", 0, minimum=0, maximum=512) if newer else 0
    # Windows hold whole squares of patches.
    side = max(1, metadata.integer("clip.vision.window_size", _WINDOW_PIXELS, minimum=1, maximum=parts.MAX_SIDE)
               // merge // fields["patch_size"]) * merge  # fmt: skip
    window = [0 if (layer + 1) % period == 0 else side for layer in range(fields["layers"])] if period else []
    activation: Activation = "gelu_sigmoid"
    if metadata.flag("clip.use_silu", False):
        activation = "silu"
    elif metadata.flag("clip.use_gelu", False):
        activation = "gelu"
    if not newer:
        # Converters write the width of the language model as that of these networks.
        up = fields.get("feed_forward_up", "ffn_up")
        rows = next((tensor.shape[-1] for tensor in file.tensors if tensor.name == f"v.blk.0.{up}.weight"), 0)
        fields["feed_forward"] = rows or fields["feed_forward"]
    native = VisionConfig(
        **fields | {"image_size": 0},
        norm="rms" if newer else "layer",
        gated=newer,
        activation=activation,
        rotation="rows_first",
        rope_style="neox",
        window=window,
        merge=merge,
        projector=["mm.0", "mm.2"],
    )
    pictures = PictureConfig(
        **parts.projections(fields, merge),
        any_size=True,
        grid=True,
    )
    return VisionSettings(native, pictures)
