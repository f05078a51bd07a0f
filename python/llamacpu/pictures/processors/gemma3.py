"""Gemma 3: the whole picture as one square, whatever its shape was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llamacpu.pictures.plan import Plan
from llamacpu.pictures.processors.base import Processor
from llamacpu.pictures.resizing import Size, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Gemma3(Processor):
    """Every picture has the same number of tokens, 256 in published models. There is no "pan and scan"."""

    merge: int = 4

    def _plan(self, size: Size) -> Plan:
        tokens = self._tile_tokens()
        pieces = ("\n\n<start_of_image>", tokens, "<end_of_image>\n\n")
        return Plan(tile=self._square(), grid=(1, 1), tiles=1, pieces=pieces)

    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        return resized(pixels, plan.tile, "bilinear")[None]
