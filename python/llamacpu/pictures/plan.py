"""How a picture of a given size is presented to a model: tiles and tokens (`Plan`), then pixels (`Prepared`)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Plan", "Prepared"]


@dataclass(frozen=True)
class Plan:
    """How a picture is presented to a model; it follows from the size alone, before anything is decoded.

    tile             height and width of each tile in pixels
    grid             rows and columns of tiles that the picture is cut into
    tiles            how many tiles are encoded: those of the grid, and the whole picture once more for some models
    pieces           the picture's part of the prompt, in order: texts with control tokens, and numbers of embeddings
    aspect_ratio_id  the model's number for the grid, from 1 on (Llama 3.2 Vision); 0 for other models
    cross            tokens of each tile that cross-attention layers see, for models that have them
    whole            height and width in pixels of the tile of the whole picture, which comes first, where they are not
                     those of the tiles of the grid; None where they are, or where there is no such tile
    number           what stands before the pieces, with {} for the number of the picture in the prompt; "" for nothing
    encoded          embeddings that the encoder makes, where the prompt has others (`Processor.arranged`); 0: the same
    """

    tile: tuple[int, int]
    grid: tuple[int, int]
    tiles: int
    pieces: tuple[str | int, ...]
    aspect_ratio_id: int = 0
    cross: int = 0
    encoded: int = 0
    whole: tuple[int, int] | None = None
    number: str = ""

    @property
    def rows(self) -> int:
        """Embeddings that the picture puts into the prompt."""
        return sum(piece for piece in self.pieces if isinstance(piece, int))

    @property
    def cross_rows(self) -> int:
        """States of the picture that cross-attention layers see; they take no place in the prompt."""
        return self.cross * self.tiles


@dataclass(frozen=True, eq=False)
class Prepared:
    """The pixels that a vision encoder reads.

    pixels  float32[tiles, height, width, 3], normalized; the whole picture comes where the model expects it
    whole   float32[1, height, width, 3], the whole picture where it is of another size; see `Plan.whole`
    """

    plan: Plan
    pixels: NDArray[np.float32]
    whole: NDArray[np.float32] | None = None
