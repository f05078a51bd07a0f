"""Qwen2-VL, Qwen2.5-VL and Qwen3-VL: the whole picture at nearly its own size, within bounds of its pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamacpu.errors import PictureError
from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_FEWEST, _FEWEST_NEWER, _MOST = 4, 64, 1280
"""Tokens of a picture, where the file does not say: of older models, of Qwen3-VL, and of all."""
_LONGEST = 200


class Qwen2VL(Processor):
    """Each side becomes the nearest number of squares of patches; pictures out of bounds keep their shape."""

    merge: int = 2

    @property
    def _fewest(self) -> int:
        return _FEWEST_NEWER if self.settings.projector == "qwen3vl_merger" else _FEWEST

    def _plan(self, size: Size) -> Plan:
        side = self.settings.patch_size * self.side
        height, width = size
        if max(size) > _LONGEST * min(size):
            raise PictureError(
                f"a picture has {width} x {height} pixels; this model reads none that are more than {_LONGEST} times "
                "as long as wide"
            )
        fewest = self.settings.min_pixels or self._fewest * side**2
        most = self.settings.max_pixels or _MOST * side**2
        if self.settings.max_tokens is not None:
            most = self.settings.max_tokens * side**2
            fewest = min(fewest, most)
        tall, wide = round(height / side) * side, round(width / side) * side
        if tall * wide > most:
            scale = math.sqrt(height * width / most)
            tall = max(side, math.floor(height / scale / side) * side)
            wide = max(side, math.floor(width / scale / side) * side)
        elif tall * wide < fewest:
            scale = math.sqrt(fewest / (height * width))
            tall, wide = math.ceil(height * scale / side) * side, math.ceil(width * scale / side) * side
        if self.settings.max_tokens is not None and tall * wide > most:  # a strip, whose short side is at its least
            tall, wide = (
                min(tall, max(side, most // wide // side * side)),
                min(wide, max(side, most // tall // side * side)),
            )
        tokens = tall // side * (wide // side)
        return Plan(tile=(tall, wide), grid=(1, 1), tiles=1, pieces=("<|vision_start|>", tokens, "<|vision_end|>"))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        return resized(pixels, plan.tile, "bicubic")[None]
