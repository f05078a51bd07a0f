"""What the native vision encoder needs to know besides its weights, and what becomes of pictures in it.

The native encoder takes the fields of `VisionConfig` by these names. Every kind of encoder is one `VisionConfig`; each
switch is documented in full beside its namesake in the native module.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from llamacpu.mappings import FieldMapping

__all__ = ["PictureConfig", "VisionConfig", "VisionSettings"]

Activation = Literal["gelu", "gelu_tanh", "gelu_sigmoid", "silu"]


@dataclass(frozen=True, kw_only=True, eq=False)
class VisionConfig(FieldMapping):
    """The sizes and switches of an encoder. It is also a mapping: `config["layers"]` is `config.layers`."""

    kind: str
    """name of the kind of encoder, for messages only"""
    image_size: int
    """side of a tile in pixels; 0 for tiles of any number of patches"""
    patch_size: int
    """side of a patch in pixels"""
    embedding_length: int
    """width of the states"""
    layers: int
    heads: int
    feed_forward: int
    """width of the feed-forward networks"""
    gated: bool = False
    """whether these have a gate"""
    output_length: int
    """width of the rows of the result: that of the language model"""
    norm: Literal["rms", "layer"] = "layer"
    norm_epsilon: float
    activation: Activation = "gelu"
    """the function inside feed-forward networks"""
    class_token: Literal["none", "first", "last"] = "none"
    """where a learned row stands beside the patches"""
    positions: Literal["none", "fixed", "nearest", "transposed", "corners"] = "none"
    """how learned positions are looked up: a row each, or in a square, at the nearest place (MiniCPM-V) or resampled
    (Muse Glimmer; Qwen3-VL, from corner to corner)"""
    first_norm: bool = False
    """whether there is a norm before the first layer"""
    last_norm: bool = True
    """whether there is one after the last layer"""
    last_norm_name: str = "v.post_ln"
    """its name in the file"""
    rotation: Literal["none", "columns_first", "rows_first"] = "none"
    """which coordinate of a patch rotates the first half of the pairs of a head; the other one rotates the second"""
    rope_style: Literal["interleaved", "neox"] = "interleaved"
    rope_base: float = 10000.0
    rope_first: int = 0
    """number of the first row and column"""
    rope_between: bool = False
    """whether the frequencies of the second coordinate lie between those of the first"""
    window: list[int] = field(default_factory=list)
    """side in patches of the squares that patches attend within, per layer; 0 or empty for all patches"""

    layer_scale: bool = False
    """whether what attention and networks add is multiplied by vectors"""
    attention_norm: str = "ln1"
    """name in the file, as the next ones"""
    attention_output: str = "attn_out"
    feed_forward_norm: str = "ln2"
    feed_forward_up: str = "ffn_up"
    feed_forward_down: str = "ffn_down"

    joint_tiles: int = 0
    """number of tiles that attend to each other (Llama 3.2 Vision); 0 for separate tiles"""
    arrangements: int = 0
    """rows of the tables of their places"""
    row_multiple: int = 1
    """the rows of a joint tile are filled up to a multiple of this"""
    global_layers: int = 0
    """gated layers after the last norm"""
    kept_inputs: list[int] = field(default_factory=list)
    """layers whose inputs the projector sees beside the final states; their number stands for the last one's output"""

    merge: int = 1
    """side in patches of the squares that become one row"""
    merge_order: Literal["patches", "channels", "average"] = "patches"
    """whether their vectors stand side by side, or their elements do, or the mean is taken"""
    merger: str = ""
    """name of a matrix that merged rows go through first, with no function after it; empty for none"""
    queries: int = 0
    """learned queries of a resampler, each of which becomes a row (MiniCPM-V); 0 for none"""
    projector_norm: str = ""
    """name of a norm of merged rows; empty for none"""
    projector_norm_kind: Literal["rms", "layer"] = "rms"
    projector_norm_epsilon: float = 1e-6
    projector: list[str]
    """names of the matrices after the encoder, with a function between two of them"""
    projector_activation: Activation = "gelu"
    projector_transposed: bool = False
    """whether the last of them is stored as inputs x outputs"""
    class_output: bool = False
    """whether the class token becomes a row of the result"""

    deepstack: list[int] = field(default_factory=list)
    """layers whose merged states give further parts of the rows, behind the first (Qwen3-VL)"""

    prefixes: list[str] = field(default_factory=lambda: ["v.", "mm."])
    """beginnings of the names of the encoder's tensors; one that is not used is an error"""
    ignored_tensors: list[str] = field(default_factory=list)
    """names of those that need not be used"""


@dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """What becomes of a picture in an encoder. `llamacpu.pictures.PictureSettings` says how pictures are prepared."""

    kind: str
    """clip.projector_type ("llama4", "gemma3", "idefics3", "internvl", "mlp", "pixtral", "qwen2vl_merger",
    "qwen3vl_merger", "resampler", "muse-glimmer" ...), or "mllama" """
    image_size: int
    """side in pixels of a picture or tile; for encoders of any size, what the file says of it"""
    patch_size: int
    """side of a patch in pixels"""
    merge: int
    """side, in patches, of the square that becomes one row; 1 for none"""
    width: int
    """elements of a row: the model's embedding_length, times 1 + its picture_layers"""
    any_size: bool = False
    """whether pictures may have any height and width that are multiples of `patch_size * merge`"""
    cross: bool = False
    """whether a picture becomes states for cross-attention rather than embeddings"""
    bidirectional: bool = False
    """whether the rows of a picture see each other in both directions"""
    grid: bool = False
    """whether the model tells rows and columns of a picture apart, so that `Embeddings` need their grid"""
    max_tiles: int = 0
    """most tiles of a picture, where the encoder limits them (cross-attention); 0 where it does not"""
    class_rows: int = 0
    """rows of a tile besides those of its patches"""
    fixed_rows: int = 0
    """rows of a tile of any size, where a resampler makes as many; 0 where they depend on its size"""

    def rows(self, height: int, width: int) -> int:
        """Rows of the result for one tile of this size in pixels, before it is encoded."""
        if self.fixed_rows:
            return self.fixed_rows
        patches = (height // self.patch_size // self.merge) * (width // self.patch_size // self.merge)
        return patches + self.class_rows


class VisionSettings(NamedTuple):
    """What the metadata of a file says about its encoder."""

    native: VisionConfig
    pictures: PictureConfig
