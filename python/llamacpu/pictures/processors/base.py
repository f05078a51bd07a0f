"""What all processors have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from llamacpu.errors import ModelError, PictureError
from llamacpu.pictures.plan import Plan, Prepared
from llamacpu.pictures.resizing import Size, normalized, resized

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.pictures.picture import Picture
    from llamacpu.pictures.settings import PictureSettings

__all__ = ["Processor"]


class Processor(ABC):
    """Turns pictures into what the vision encoder of one kind of model reads.

    merge  the side of the square of patches that becomes one embedding, where the file does not say
    """

    merge: int = 1

    def __init__(self, settings: PictureSettings) -> None:
        self.settings: PictureSettings = settings
        self.side: int = settings.merge or self.merge

    def plan(self, size: Size) -> Plan:
        """How a picture of this height and width is presented. Raises PictureError for a shape that cannot be."""
        height, width = size
        if height < 1 or width < 1:
            raise PictureError(f"a picture has {width} x {height} pixels; expected at least one")
        return self._plan(size)

    def prepare(self, picture: Picture) -> Prepared:
        """The pixels that the encoder reads. Raises PictureError for a damaged picture or a shape it cannot show."""
        plan = self.plan(picture.size)
        pixels = picture.pixels()
        scale = self.settings.mean, self.settings.std
        whole = None if plan.whole is None else normalized(resized(pixels, plan.whole, "bicubic")[None], *scale)
        return Prepared(plan, normalized(self._tiles(pixels, plan), *scale), whole)

    def arranged(
        self, rows: NDArray[np.float32], plan: Plan, size: Size, newline: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """The embeddings of the prompt, from those that the encoder made of the tiles: the same for most models.

        rows     float32[tokens of all tiles, width]
        plan     that of a picture of this `size`, its height and width
        newline  float32[width], what the file has to end a row of the picture with

        Raises ModelError if the model needs a `newline` and the file has none.
        """
        del plan, size, newline
        return rows

    @abstractmethod
    def _plan(self, size: Size) -> Plan: ...

    @abstractmethod
    def _tiles(self, pixels: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        """uint8[tiles, height, width, 3]"""

    def _tile_tokens(self) -> int:
        """Embeddings of a square tile: its patches, merged."""
        side = self.settings.image_size // self.settings.patch_size // self.side
        if side < 1:
            raise ModelError(
                f"the vision encoder makes no embedding of tiles of {self.settings.image_size} pixels: it merges "
                f"{self.side} x {self.side} patches of {self.settings.patch_size}"
            )
        return side * side

    def _square(self) -> Size:
        return self.settings.image_size, self.settings.image_size
