"""InternVL: the tiles of the grid whose shape is nearest to the picture's, and then the whole picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized, tiles_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_TILES = 12


class InternVL(Processor):
    """The picture is stretched over its grid; of grids of the same shape, a larger one is for a larger picture."""

    merge: int = 2

    def _plan(self, size: Size) -> Plan:
        tokens = self._tile_tokens()
        side = self.settings.image_size
        least, most = max(self.settings.min_tiles, 1), self.settings.max_tiles or _MOST_TILES
        if self.settings.max_tokens is not None:
            most = min(most, max(1, self.settings.max_tokens // tokens - 1))
        rows, columns = _grid(size, min(least, most), most, side)
        tiles = rows * columns + (rows * columns > 1)
        return Plan(tile=(side, side), grid=(rows, columns), tiles=tiles, pieces=("<img>", tokens * tiles, "</img>"))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        tiles = tiles_of(resized(pixels, (plan.grid[0] * side, plan.grid[1] * side), "bicubic"), plan.grid)
        if len(tiles) == 1:
            return tiles
        return np.concatenate([tiles, resized(pixels, (side, side), "bicubic")[None]])


def _grid(size: Size, least: int, most: int, side: int) -> Size:
    height, width = size
    sides = range(1, most + 1)
    grids = [(rows, columns) for columns in sides for rows in sides if least <= rows * columns <= most]
    best, nearest = (1, 1), float("inf")
    for rows, columns in sorted(grids, key=lambda grid: grid[0] * grid[1]):
        distance = abs(width / height - columns / rows)
        # Of equally near ones, the larger grid, unless it has more than twice the pixels of the picture.
        if distance < nearest or (distance == nearest and 2 * height * width > side * side * rows * columns):
            best, nearest = (rows, columns), distance
    return best
