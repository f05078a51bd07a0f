"""Llama 4: the grid of tiles in which the picture loses least, and the whole picture once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llamacpu.pictures.fixed_point import resized_in_fixed_point
from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, padded, tiles_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_TILES = 16


class Llama4(Processor):
    """The canvas is the one on which the picture is reduced least and, of those, that wastes least.

    transformers computes the scales in float32, which decides between canvases of nearly equal scale; so does this.
    """

    merge: int = 2

    def _plan(self, size: Size) -> Plan:
        tokens = self._tile_tokens()
        side = self.settings.image_size
        most = self.settings.max_tiles or _MOST_TILES
        if self.settings.max_tokens is not None:
            most = min(most, max(1, self.settings.max_tokens // tokens - 1))
        height, width = _canvas(size, most, side)
        rows, columns = height // side, width // side
        pieces: list[str | int] = []
        text = "<|image_start|>"
        if rows * columns > 1:
            for _ in range(rows):
                for column in range(columns):
                    pieces += [text, tokens]
                    text = "<|tile_x_separator|>" if column < columns - 1 else "<|tile_y_separator|>"
        pieces += [text + "<|image|>", tokens, "<|image_end|>"]
        tiles = rows * columns + (rows * columns > 1)
        return Plan(tile=(side, side), grid=(rows, columns), tiles=tiles, pieces=tuple(pieces))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        canvas = plan.grid[0] * side, plan.grid[1] * side
        size = pixels.shape[0], pixels.shape[1]
        shown = padded(resized_in_fixed_point(pixels, _size_on(size, canvas, side), "bilinear"), canvas)
        tiles = tiles_of(shown, plan.grid)
        if len(tiles) == 1:
            return tiles
        return np.concatenate([tiles, resized_in_fixed_point(pixels, (side, side), "bilinear")[None]])


def _canvas(size: Size, most: int, side: int) -> Size:
    by_shape: dict[float, list[Size]] = {}
    for tiles in range(most, 0, -1):
        for rows in (rows for rows in range(1, tiles + 1) if tiles % rows == 0):
            by_shape.setdefault(rows / (tiles // rows), []).append((rows, tiles // rows))
    grids = np.array([grid for same in by_shape.values() for grid in same])
    canvases = (grids * side).astype(np.float32)
    scales = (canvases / np.array(size, np.float32)).min(1)
    enlarging = scales[scales >= 1]
    scale = enlarging.min() if len(enlarging) else scales.max()
    chosen = grids[scales == scale]
    rows, columns = (int(count) for count in chosen[chosen.prod(1).argmin()])
    return rows * side, columns * side


def _size_on(size: Size, canvas: Size, side: int) -> Size:
    """The picture's size on its canvas: it is reduced as needed, but enlarged only up to the side of a tile."""
    target = [min(max(own, side), most) for own, most in zip(size, canvas, strict=True)]
    exact: list[float | np.float32] = []
    for own, wanted in zip(size, target, strict=True):
        # Where the canvas is the limit, transformers computes in float32.
        exact.append(np.float32(wanted) / np.float32(own) if wanted < max(own, side) else wanted / own)
    single = any(isinstance(scale, np.float32) for scale in exact)
    by_width = np.float32(exact[1]) < np.float32(exact[0]) if single else exact[1] < exact[0]
    scaled, full = (0, 1) if by_width else (1, 0)
    scale = exact[full]
    length = np.float32(size[scaled]) * scale if isinstance(scale, np.float32) else size[scaled] * scale
    found = [0, 0]
    found[full] = target[full]
    found[scaled] = max(1, min(int(length), target[scaled]))
    return found[0], found[1]
