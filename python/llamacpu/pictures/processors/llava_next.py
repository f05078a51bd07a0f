"""LLaVA 1.6: the whole picture as one square, and then in tiles of the canvas that wastes least."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, padded, resized, tiles_of, within

if TYPE_CHECKING:
    from numpy.typing import NDArray


class LlavaNext(Processor):
    """The canvas is the one of the file's list on which most pixels of the picture survive; it lies in the middle."""

    def _plan(self, size: Size) -> Plan:
        side = self.settings.image_size
        tokens = self._tile_tokens()
        grids = [grid for grid in self.settings.grids if grid[0] >= side and grid[1] >= side] or [(side, side)]
        if self.settings.max_tokens is not None:
            most = max(1, self.settings.max_tokens // tokens - 1)
            counts = [grid[0] // side * (grid[1] // side) for grid in grids]
            most = max(most, min(counts))
            grids = [grid for grid, count in zip(grids, counts, strict=True) if count <= most]
        height, width = _best(size, grids)
        grid = height // side, width // side
        tiles = 1 + grid[0] * grid[1]
        return Plan(tile=(side, side), grid=grid, tiles=tiles, pieces=(tiles * tokens,))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        canvas = plan.grid[0] * side, plan.grid[1] * side
        size = within((pixels.shape[0], pixels.shape[1]), canvas, up=True)
        at = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
        shown = padded(resized(pixels, size, "bicubic"), canvas, at)
        whole = resized(pixels, (side, side), "bicubic")
        return np.concatenate([whole[None], tiles_of(shown, plan.grid)])


def _best(size: Size, grids: list[Size]) -> Size:
    height, width = size

    def kept(grid: Size) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        return pixels, -(grid[0] * grid[1] - pixels)

    return max(grids, key=kept)
