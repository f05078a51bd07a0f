"""Llama 3.2 Vision: up to four tiles, seen by cross-attention layers; a picture is one token of the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, padded, resized, tiles_of, within

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_TILES = 4


class Mllama(Processor):
    """The canvas is chosen as in Llama 4, from the grids of at most four tiles; the picture lies in its upper left."""

    def _plan(self, size: Size) -> Plan:
        side = self.settings.image_size
        # The class token is one more.
        tokens = self._tile_tokens() + 1
        most = self.settings.max_tiles or _MOST_TILES
        grids = _grids(most)
        allowed = grids
        if self.settings.max_tokens is not None:
            tiles = max(1, self.settings.max_tokens // tokens)
            allowed = [grid for grid in grids if grid[0] * grid[1] <= tiles]
        grid = _grid(size, allowed, side)
        return Plan(
            tile=(side, side), grid=grid, tiles=grid[0] * grid[1], pieces=("<|image|>",),
            aspect_ratio_id=grids.index(grid) + 1, cross=tokens,
        )  # fmt: skip

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        canvas = plan.grid[0] * side, plan.grid[1] * side
        size = pixels.shape[0], pixels.shape[1]
        height, width = (min(max(own, side), most) for own, most in zip(size, canvas, strict=True))
        shown = resized(pixels, within(size, (height, width)), "bilinear")
        return tiles_of(padded(shown, canvas), plan.grid)


def _grids(most: int) -> list[Size]:
    """Rows and columns of tiles, in the order in which the model numbers them."""
    sides = range(1, most + 1)
    return [(rows, columns) for rows in sides for columns in sides if rows * columns <= most]


def _grid(size: Size, grids: list[Size], side: int) -> Size:
    known = np.array(grids)
    scales = (known * side / np.array(size)).min(1)
    enlarging = scales[scales >= 1]
    scale = enlarging.min() if len(enlarging) else scales.max()
    chosen = known[scales == scale]
    rows, columns = chosen[chosen.prod(1).argmin()]
    return int(rows), int(columns)
