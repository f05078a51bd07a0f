"""What the file of a vision encoder says about the pictures that it reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from llamacpu.arguments import described
from llamacpu.errors import ModelError
from llamacpu.vision.minicpmv import queries_of

__all__ = ["PictureSettings"]

_Channels: TypeAlias = tuple[float, float, float]
_CLIP_MEAN: _Channels = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD: _Channels = (0.26862954, 0.26130258, 0.27577711)
# The largest values of published models are 1536 and 48; a header cannot ask for more pixels than these allow.
_LARGEST = {"image_size": 1 << 13, "patch_size": 1 << 8, "merge": 1 << 4, "longest_edge": 1 << 13}

_MOST_CROPS = 16


@dataclass(frozen=True)
class PictureSettings:
    """The input of a vision encoder, from the metadata of its file.

    projector     the kind of model: clip.projector_type, or "mllama"
    image_size    side of a tile in pixels, or the longest side of a picture
    patch_size    side of a patch in pixels
    merge         side of the square of patches that becomes one embedding; 0 if the file does not say
    mean, std     of the three channels, on a scale from 0 to 1
    longest_edge  longest side of the whole picture, for models with tiles; 0 if the file does not say
    min_pixels, max_pixels  bounds of the whole picture; 0 if the file does not say
    min_tiles, max_tiles    bounds of the tiles of a picture; 0 if the file does not say
    version       of the model, where one kind has several (MiniCPM-V); 0 for others
    queries       embeddings of a tile of any size, where the encoder makes as many of each; 0 for others
    grids         heights and widths of the canvases that a picture may be cut from, in pixels
    max_crops     most crops of a long picture, shown beside the whole (Gemma 3); fewer than 2: none
    max_tokens    the caller's limit of tokens of a picture: a model that has a choice of sizes chooses a smaller one
    """

    projector: str
    image_size: int
    patch_size: int
    merge: int = 0
    mean: _Channels = _CLIP_MEAN
    std: _Channels = _CLIP_STD
    longest_edge: int = 0
    min_pixels: int = 0
    max_pixels: int = 0
    max_tiles: int = 0
    min_tiles: int = 0
    version: int = 0
    queries: int = 0
    grids: tuple[tuple[int, int], ...] = ()
    max_tokens: int | None = None
    max_crops: int = 0

    def __post_init__(self) -> None:
        for name in ("image_size", "patch_size"):
            if getattr(self, name) < 1:
                raise ModelError(f"the vision encoder's {name} is {getattr(self, name)}; expected at least 1")
        for name, largest in _LARGEST.items():
            value = getattr(self, name)
            if not 0 <= value <= largest:
                raise ModelError(f"the vision encoder's {name} is {value}; expected at most {largest}")
        if any(deviation == 0 for deviation in self.std):
            raise ModelError("the vision encoder's image_std has a zero, by which pixels would be divided")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError(f"the limit of tokens of a picture is {self.max_tokens}; expected at least 1")
        if not 0 <= self.max_crops <= _MOST_CROPS:
            raise ValueError(f"the limit of crops of a picture is {self.max_crops}; expected 0 to {_MOST_CROPS}")

    @classmethod
    def of(cls, metadata: Mapping[str, Any], max_tokens: int | None = None, max_crops: int = 0) -> PictureSettings:
        """The settings of a file with a vision encoder: an mmproj file, or a Llama 3.2 Vision model in one file.

        Raises ModelError for a file without a vision encoder, and for values that cannot be right.
        """
        if str(metadata.get("general.architecture")) == "mllama":
            read = _Reader(metadata, "mllama.vision.")
            return cls(
                "mllama", read.integer("image_size"), read.integer("patch_size"),
                max_tiles=read.integer("max_num_tiles", 4), max_tokens=max_tokens,
            )  # fmt: skip
        projector = metadata.get("clip.vision.projector_type") or metadata.get("clip.projector_type")
        if not projector and metadata.get("clip.has_llava_projector"):
            projector = "mlp"
        if not isinstance(projector, str) or not projector:
            raise ModelError(
                "the file has no vision encoder (no clip.projector_type); expected the mmproj file that belongs to the "
                "model"
            )
        read = _Reader(metadata, "clip.vision.")
        version = queries = 0
        if projector == "resampler":
            of_model = _Reader(metadata, "clip.minicpmv_")
            version, queries = queries_of(of_model.integer("version", 0), of_model.integer("query_num", 0))
        flat = read.integers("image_grid_pinpoints")
        if len(flat) % 2:
            raise ModelError("clip.vision.image_grid_pinpoints has an odd number of values; expected pairs")
        return cls(
            projector, read.integer("image_size"), read.integer("patch_size"),
            read.integer("spatial_merge_size", 0) or read.integer("projector.scale_factor", 0),
            read.channels("image_mean"), read.channels("image_std"),
            longest_edge=read.integer("preproc_image_size", 0), min_pixels=read.integer("image_min_pixels", 0),
            max_pixels=read.integer("image_max_pixels", 0), max_tiles=read.integer("preproc_max_tiles", 0),
            min_tiles=read.integer("preproc_min_tiles", 0),
            version=version, queries=queries, grids=tuple(zip(flat[::2], flat[1::2], strict=True)),
            max_tokens=max_tokens, max_crops=max_crops,
        )  # fmt: skip


class _Reader:
    """Values of metadata under a prefix, checked."""

    def __init__(self, metadata: Mapping[str, Any], prefix: str) -> None:
        self._metadata = metadata
        self._prefix = prefix

    def integer(self, name: str, otherwise: int | None = None) -> int:
        value = self._metadata.get(self._prefix + name, otherwise)
        if value is None:
            raise ModelError(f"the vision encoder's file has no {self._prefix}{name}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 31:
            raise ModelError(f"{self._prefix}{name} is {described(value)}; expected a whole number below 2^31")
        return value

    def integers(self, name: str) -> tuple[int, ...]:
        values = self._list(name)
        if not all(isinstance(value, int) and 0 < value <= _LARGEST["image_size"] for value in values):
            raise ModelError(f"{self._prefix}{name} is not a list of sizes in pixels")
        return tuple(values)

    def channels(self, name: str) -> _Channels:
        values = self._list(name)
        if len(values) != 3 or not all(isinstance(value, float) and abs(value) < 1e6 for value in values):
            raise ModelError(f"{self._prefix}{name} is {described(values)}; expected three numbers")
        return (values[0], values[1], values[2])

    def _list(self, name: str) -> list[Any]:
        values = self._metadata.get(self._prefix + name)
        if values is None:
            return []
        plain = values.tolist() if hasattr(values, "tolist") else values
        if not isinstance(plain, Sequence) or isinstance(plain, str):
            raise ModelError(f"{self._prefix}{name} is {described(values)}; expected a list")
        return list(plain)
