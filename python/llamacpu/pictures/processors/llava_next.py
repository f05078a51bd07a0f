"""LLaVA 1.6: the whole picture as one square, and then in tiles of the canvas that wastes least.

The embeddings of the tiles are put together to the canvas, the rows and columns of its borders are cut away, and each
row that remains ends with an embedding of its own, as in transformers' `LlavaNextModel.pack_image_features`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from llamacpu.errors import ModelError
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
            counts = [tokens + _count(self._visible(size, (grid[0] // side, grid[1] // side))) for grid in grids]
            most = max(self.settings.max_tokens, min(counts))
            grids = [grid for grid, count in zip(grids, counts, strict=True) if count <= most]
        height, width = _best(size, grids)
        grid = height // side, width // side
        tiles = 1 + grid[0] * grid[1]
        count = tokens + _count(self._visible(size, grid))
        return Plan(tile=(side, side), grid=grid, tiles=tiles, pieces=(count,), encoded=tiles * tokens)

    def _visible(self, size: Size, grid: Size) -> tuple[slice, slice]:
        """The rows and columns of the canvas, in embeddings, on which the picture lies."""
        side = self.settings.image_size // self.settings.patch_size
        rows, columns = grid[0] * side, grid[1] * side
        height, width = size
        if width / height > columns / rows:
            border = (rows - int(round(height * (columns / width), 7))) // 2
            return slice(border, rows - border), slice(0, columns)
        border = (columns - int(round(width * (rows / height), 7))) // 2
        return slice(0, rows), slice(border, columns - border)

    def arranged(
        self, rows: NDArray[np.float32], plan: Plan, size: Size, newline: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        if newline is None or newline.shape != rows.shape[1:]:
            raise ModelError(
                "the vision encoder's file has no tensor model.image_newline of the width of its embeddings; LLaVA 1.6 "
                "ends each row of a picture with it: convert the model again"
            )
        side = self.settings.image_size // self.settings.patch_size
        whole, tiles = rows[: side * side], rows[side * side :]
        canvas = tiles.reshape(*plan.grid, side, side, -1).swapaxes(1, 2)
        canvas = canvas.reshape(plan.grid[0] * side, plan.grid[1] * side, -1)[self._visible(size, plan.grid)]
        ends = np.broadcast_to(newline, (len(canvas), 1, len(newline)))
        lines = np.concatenate([canvas, ends], axis=1).reshape(-1, len(newline))
        return np.ascontiguousarray(np.concatenate([whole, lines]))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        canvas = plan.grid[0] * side, plan.grid[1] * side
        size = within((pixels.shape[0], pixels.shape[1]), canvas, up=True)
        at = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
        shown = padded(resized(pixels, size, "bicubic"), canvas, at)
        whole = resized(pixels, (side, side), "bicubic")
        return np.concatenate([whole[None], tiles_of(shown, plan.grid)])


def _count(visible: tuple[slice, slice]) -> int:
    """Embeddings of that part of the canvas, with one at the end of each row."""
    rows, columns = visible
    lines, places = len(range(rows.start, rows.stop)), len(range(columns.start, columns.stop))
    return lines * (places + 1)


def _best(size: Size, grids: list[Size]) -> Size:
    height, width = size

    def kept(grid: Size) -> tuple[int, int]:
        scale = min(grid[1] / width, grid[0] / height)
        pixels = min(int(width * scale) * int(height * scale), width * height)
        return pixels, -(grid[0] * grid[1] - pixels)

    return max(grids, key=kept)
