"""Idefics 3 and SmolVLM: the picture in tiles, row by row, and then as a whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized, tiles_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST = 4096


class Idefics3(Processor):
    """The picture is resized twice: to the longest edge of the settings, and then up to whole tiles."""

    merge: int = 4

    def _plan(self, size: Size) -> Plan:
        tokens = self._tile_tokens()
        side = self.settings.image_size
        height, width = _whole_tiles(self._first(size), side)
        rows, columns = height // side, width // side
        if rows * columns == 1:
            pieces: tuple[str | int, ...] = (
                "<fake_token_around_image><global-img>", tokens, "<fake_token_around_image>",
            )  # fmt: skip
            return Plan(tile=(side, side), grid=(1, 1), tiles=1, pieces=pieces)
        found: list[str | int] = []
        text = ""
        for row in range(rows):
            for column in range(columns):
                found += [f"{text}<fake_token_around_image><row_{row + 1}_col_{column + 1}>", tokens]
                text = ""
            text = "\n"
        found += ["\n\n<fake_token_around_image><global-img>", tokens, "<fake_token_around_image>"]
        return Plan(tile=(side, side), grid=(rows, columns), tiles=rows * columns + 1, pieces=tuple(found))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        first = resized(pixels, self._first((pixels.shape[0], pixels.shape[1])), "lanczos")
        shown = resized(first, (plan.grid[0] * side, plan.grid[1] * side), "lanczos")
        tiles = tiles_of(shown, plan.grid)
        if len(tiles) == 1:
            return tiles
        return np.concatenate([tiles, resized(shown, (side, side), "lanczos")[None]])

    def _first(self, size: Size) -> Size:
        """The size of the first resizing: the longer side has a fixed length, the other an even one."""
        side = self.settings.image_size
        longest = self.settings.longest_edge or 4 * side
        if self.settings.max_tokens is not None:
            tiles = self.settings.max_tokens // self._tile_tokens() - 1
            longest = min(longest, side * max(1, math.isqrt(max(tiles, 1))))
        longest = min(longest, _LARGEST)
        height, width = size
        shape = width / height
        if width >= height:
            short = int(longest / shape)
            return max(1, short + short % 2), longest
        short = int(longest * shape)
        return longest, max(1, short + short % 2)


def _whole_tiles(size: Size, side: int) -> Size:
    height, width = size
    shape = width / height
    if width >= height:
        width = math.ceil(width / side) * side
        height = math.ceil(int(width / shape) / side) * side
    else:
        height = math.ceil(height / side) * side
        width = math.ceil(int(height * shape) / side) * side
    return max(height, side), max(width, side)
