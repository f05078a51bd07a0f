"""What most files of vision encoders have in common."""

from __future__ import annotations

from typing import Any

from llamacpu.errors import ModelError
from llamacpu.gguf.file import GGUFFile

__all__ = [
    "Fields",
    "common",
    "has",
    "heads_of",
    "layers_in",
    "projections",
    "second_norm",
    "swapped",
]

MAX_SIDE = 1 << 14
MAX_WIDTH = 1 << 20
Fields = dict[str, Any]


def has(file: GGUFFile, name: str) -> bool:
    """Whether the file has a tensor of this name."""
    return any(tensor.name == name for tensor in file.tensors)


def common(file: GGUFFile, kind: str, output: int = 0) -> Fields:
    """The fields of `VisionConfig` that llama.cpp's converter writes for all kinds.

    output  width of the rows of the result; 0 for what the file says
    """
    metadata = file.metadata
    width = metadata.integer("clip.vision.embedding_length", minimum=1, maximum=MAX_WIDTH)
    return {
        "kind": kind,
        "image_size": metadata.integer("clip.vision.image_size", minimum=1, maximum=MAX_SIDE),
        "patch_size": metadata.integer("clip.vision.patch_size", minimum=1, maximum=MAX_SIDE),
        "embedding_length": width,
        "feed_forward": metadata.integer("clip.vision.feed_forward_length", minimum=1, maximum=MAX_WIDTH),
        "layers": metadata.integer("clip.vision.block_count", minimum=1, maximum=512),
        "heads": heads_of(file, "clip.vision.attention.head_count", width),
        "norm_epsilon": metadata.number("clip.vision.attention.layer_norm_epsilon", above=0.0),
        "output_length": output or metadata.integer("clip.vision.projection_dim", minimum=1, maximum=MAX_WIDTH),
    } | swapped(file, width)


def heads_of(file: GGUFFile, key: str, width: int) -> int:
    """The number of heads: a divisor of the width."""
    heads = file.metadata.integer(key, minimum=1, maximum=width)
    if width % heads:
        raise ModelError(f"metadata key {key!r} is {heads}; expected a divisor of the width, {width}")
    return heads


def layers_in(file: GGUFFile, layers: int) -> int:
    """How many of the `layers` are in the file: some converters leave out the last ones, which models do not use."""
    present = {tensor.name.split(".")[2] for tensor in file.tensors if tensor.name.startswith("v.blk.")}
    return min(layers, len(present)) or layers


def swapped(file: GGUFFile, width: int) -> Fields:
    """The names of the two matrices of a feed-forward network, which early converters exchanged."""
    first = next((tensor for tensor in file.tensors if tensor.name == "v.blk.0.ffn_down.weight"), None)
    if first is None or first.shape[0] != width or first.shape[-1] == width:
        return {}
    return {"feed_forward_up": "ffn_down", "feed_forward_down": "ffn_up"}


def second_norm(file: GGUFFile) -> str:
    """The name of the norm before feed-forward networks, which one release of llama.cpp's converter got wrong."""
    wrong = "attn_post_norm"
    return wrong if has(file, f"v.blk.0.{wrong}.weight") and not has(file, "v.blk.0.ln2.weight") else "ln2"


def projections(fields: Fields, merge: int = 1) -> Fields:
    """The fields of `PictureConfig` that follow from those of the encoder."""
    return {
        "kind": fields["kind"],
        "image_size": fields["image_size"],
        "patch_size": fields["patch_size"],
        "merge": merge,
        "width": fields["output_length"],
    }
