"""Muse Glimmer: the whole picture at nearly its own size, in whole squares of patches."""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

from llamacpu.pictures.fixed_point import resized_in_fixed_point
from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_TOKENS = 4096


class MuseGlimmer(Processor):
    """Of the whole numbers of squares next to the exact ones, those whose shape is nearest to the picture's."""

    merge: int = 2

    def _plan(self, size: Size) -> Plan:
        side = self.settings.patch_size * self.side
        most = min(_MOST_TOKENS, self.settings.max_tokens or _MOST_TOKENS)
        rows, columns = _squares(size, side, most)
        return Plan(
            tile=(rows * side, columns * side), grid=(1, 1), tiles=1,
            pieces=("<|image_start|>", rows * columns, "<|image_end|>"),
        )  # fmt: skip

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        return resized_in_fixed_point(pixels, plan.tile, "lanczos")[None]


def _squares(size: Size, side: int, most: int) -> Size:
    height, width = size
    rows, columns = height / side, width / side
    ratio = columns / rows
    if rows * columns > most:
        rows = (most / ratio) ** 0.5
        columns = rows * ratio
    near = product((math.floor(rows), math.ceil(rows)), (math.floor(columns), math.ceil(columns)))
    # A set, as in transformers: between candidates of equal shape, its order decides.
    fitting = [grid for grid in set(near) if min(grid) >= 1 and grid[0] * grid[1] <= most]
    if not fitting:
        return min(max(1, round(rows)), most), min(max(1, round(columns)), most)
    return min(fitting, key=lambda grid: abs(grid[0] / grid[1] - height / width))
