"""MiniCPM-V: the whole picture, and then slices of it, each in its own shape and about as large as the other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized, tiles_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_SLICES = 9
_OLDEST = 2


class MiniCPMV(Processor):
    """A picture that is larger than a tile is also cut into slices, as many as it has tiles' pixels, up to nine.

    Of the grids of about so many slices, the one whose shape is nearest to the picture's is chosen.
    """

    def _plan(self, size: Size) -> Plan:
        tokens = self.settings.queries
        most = self.settings.max_tiles or _MOST_SLICES
        if self.settings.max_tokens is not None:
            most = min(most, self.settings.max_tokens // tokens - 1)
        grid = _grid(size, most, self.settings.image_size)
        oldest = self.settings.version == _OLDEST
        number = "" if oldest else "<image_id>{}</image_id>"
        if grid is None:
            return Plan(
                tile=self._fitted(size, up=True), grid=(1, 1), tiles=1, pieces=("<image>", tokens, "</image>"),
                number=number,
            )  # fmt: skip
        rows, columns = grid
        begin, end = ("<image>", "</image>") if oldest else ("<slice>", "</slice>")
        pieces: list[str | int] = ["<image>", tokens]
        text = "</image><slice>" if oldest else "</image>"
        for row in range(rows):
            for _ in range(columns):
                pieces += [text + begin, tokens]
                text = end
            text += "\n" if row < rows - 1 else ""
        pieces.append(text + "</slice>" if oldest else text)
        # The sides of the picture rounded to whole slices, and the size of one of them.
        height, width = (max(1, round(own / count)) for own, count in zip(size, grid, strict=True))
        return Plan(
            tile=self._fitted((height, width), up=True), grid=grid, tiles=rows * columns + 1, pieces=tuple(pieces),
            whole=self._fitted(size), number=number,
        )  # fmt: skip

    def _fitted(self, size: Size, up: bool = False) -> Size:
        """The size with about as many pixels as a tile in whole patches, if the picture has more or is made larger."""
        side, patch = self.settings.image_size, self.settings.patch_size
        height, width = size
        if height * width > side * side or up:
            shape = width / height
            height = int(side / math.sqrt(shape))
            width = int(height * shape)
        return max(round(height / patch), 1) * patch, max(round(width / patch), 1) * patch

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        (rows, columns), (height, width) = plan.grid, plan.tile
        return tiles_of(resized(pixels, (rows * height, columns * width), "bicubic"), plan.grid)


def _grid(size: Size, most: int, side: int) -> Size | None:
    """Rows and columns of slices; None for a picture that is not cut."""
    height, width = size
    shape = math.log(width / height)
    wanted = min(math.ceil(width * height / (side * side)), most)
    if wanted <= 1:
        return None
    counts = [count for count in (wanted - 1, wanted, wanted + 1) if 1 < count <= most]
    grids = [(count // columns, columns) for count in counts for columns in range(1, count + 1) if count % columns == 0]
    return min(grids, key=lambda grid: abs(shape - math.log(grid[1] / grid[0])))
