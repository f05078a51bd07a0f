"""Pixtral: the whole picture at its own size up to a longest side; every row of patches ends with a token."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Pixtral(Processor):
    """Each side is rounded up to whole patches, or to whole squares of them where the model merges patches."""

    def _plan(self, size: Size) -> Plan:
        side = self.settings.patch_size * self.side
        longest = self.settings.image_size
        if self.settings.max_tokens is not None:
            longest = min(longest, side * max(1, math.isqrt(self.settings.max_tokens)))
        height, width = size
        ratio = max(height / longest, width / longest)
        if ratio > 1:
            height, width = math.floor(height / ratio), math.floor(width / ratio)
        rows, columns = max(1, (height - 1) // side + 1), max(1, (width - 1) // side + 1)
        pieces: list[str | int] = []
        for row in range(rows):
            pieces += [columns, "[IMG_BREAK]" if row < rows - 1 else "[IMG_END]"]
        return Plan(tile=(rows * side, columns * side), grid=(1, 1), tiles=1, pieces=tuple(pieces))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        return resized(pixels, plan.tile, "bicubic")[None]
