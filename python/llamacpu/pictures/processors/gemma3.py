"""Gemma 3: the whole picture as one square, and pieces of a long one beside it if they are asked for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized

if TYPE_CHECKING:
    from numpy.typing import NDArray

_RATIO = 1.2
"""A picture at least this much longer than wide, or wider than long, is cut ("pan and scan")."""
_SMALLEST = 256
"""Least side of a crop in pixels."""


class Gemma3(Processor):
    """The picture has a fixed number of tokens, 256 in published models, and as many again for each of its crops."""

    merge: int = 4

    def _plan(self, size: Size) -> Plan:
        tokens = self._tile_tokens()
        count = len(self._crops(size))
        if not count:
            pieces: tuple[str | int, ...] = (_BEGIN, tokens, _END)
            return Plan(tile=self._square(), grid=(1, 1), tiles=1, pieces=pieces)
        between = f"{_END} and here are some crops to help you see better {_BEGIN}"
        more: list[str | int] = [f"Here is the original image {_BEGIN}", tokens, between]
        for number in range(count):
            more += [tokens, _END if number + 1 == count else f"{_END} {_BEGIN}"]
        return Plan(tile=self._square(), grid=(1, 1), tiles=1 + count, pieces=tuple(more))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        crops = self._crops((pixels.shape[0], pixels.shape[1]))
        shown = [pixels, *(pixels[top : top + tall, left : left + wide] for top, left, tall, wide in crops)]
        return np.stack([resized(np.ascontiguousarray(one), plan.tile, "bilinear") for one in shown])

    def _crops(self, size: Size) -> list[tuple[int, int, int, int]]:
        """Top, left, height and width of the crops, along the longer side; none for a picture that is nearly square."""
        most = self.settings.max_crops
        if self.settings.max_tokens is not None:
            most = min(most, self.settings.max_tokens // self._tile_tokens() - 1)
        height, width = size
        long, short = max(size), min(size)
        if most < 2 or long / short < _RATIO:
            return []
        count = min(max(2, min(long // _SMALLEST, math.floor(long / short + 0.5))), most)
        length = math.ceil(long / count)
        if min(length, short) < _SMALLEST:
            return []
        if width >= height:
            return [(0, length * number, height, length) for number in range(count)]
        return [(length * number, 0, length, width) for number in range(count)]


_BEGIN, _END = "\n\n<start_of_image>", "<end_of_image>\n\n"
