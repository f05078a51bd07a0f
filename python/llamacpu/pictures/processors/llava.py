"""LLaVA 1.5: the middle of the picture as one square."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Llava(Processor):
    """The shorter side becomes the side of the square; the longer one is cropped at both ends."""

    def _plan(self, size: Size) -> Plan:
        return Plan(tile=self._square(), grid=(1, 1), tiles=1, pieces=(self._tile_tokens(),))

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        side = self.settings.image_size
        height, width = pixels.shape[:2]
        longer = int(side * max(height, width) / min(height, width))
        full = (longer, side) if width <= height else (side, longer)
        return resized(pixels, (side, side), "bicubic", middle_of=full)[None]
