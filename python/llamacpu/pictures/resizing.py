"""Resizing, padding and cutting of pictures."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from llamacpu.pictures.pillow import image_module

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Filter", "Size", "normalized", "padded", "resized", "tiles_of", "within"]

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""
Filter = Literal["bilinear", "bicubic", "lanczos"]
_LARGEST = 1 << 24
"""Pixels of a picture that is computed as a whole even if only its middle is wanted."""
_FILTERS = {"lanczos": 1, "bilinear": 2, "bicubic": 3}


def resized(pixels: NDArray[np.uint8], size: Size, kind: Filter, *, middle_of: Size | None = None) -> NDArray[np.uint8]:
    """The picture at another size, filtered over all pixels that fall into a new one (antialiased).

    middle_of  the size of the whole picture, of which only the middle is wanted: the rest, which may be long, is not
               computed
    """
    module = image_module()
    height, width = size
    if middle_of is None:
        if pixels.shape[:2] == size:
            return pixels
        return np.asarray(module.fromarray(pixels).resize((width, height), _FILTERS[kind]))
    top, left = ((full - part) // 2 for full, part in zip(middle_of, size, strict=True))
    if middle_of[0] * middle_of[1] <= _LARGEST:
        return resized(pixels, middle_of, kind)[top : top + height, left : left + width]
    # Pillow keeps the borders of a box in single precision, which may change a gray level or two.
    tall, wide = pixels.shape[0] / middle_of[0], pixels.shape[1] / middle_of[1]
    right, bottom = min((left + width) * wide, pixels.shape[1]), min((top + height) * tall, pixels.shape[0])
    box = (left * wide, top * tall, right, bottom)
    return np.asarray(module.fromarray(pixels).resize((width, height), _FILTERS[kind], box=box))


def within(size: Size, canvas: Size, up: bool = False) -> Size:
    """The largest size of a picture's shape within a canvas, rounded down (or up) to whole pixels, at least 1."""
    height, width = size
    tall, wide = canvas
    rounded = math.ceil if up else math.floor
    if wide / width < tall / height:
        return max(1, min(rounded(height * (wide / width)), tall)), wide
    return tall, max(1, min(rounded(width * (tall / height)), wide))


def padded(
    pixels: NDArray[np.uint8], size: Size, at: Size = (0, 0), color: tuple[int, int, int] = (0, 0, 0)
) -> NDArray[np.uint8]:
    """The picture on a canvas of one color, with its upper left corner at `at`."""
    if pixels.shape[:2] == size:
        return pixels
    canvas = np.empty((*size, 3), np.uint8)
    canvas[:] = color
    top, left = at
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def tiles_of(pixels: NDArray[np.uint8], grid: Size) -> NDArray[np.uint8]:
    """The picture cut into rows and columns of equal tiles, row by row: uint8[tiles, height, width, 3]."""
    rows, columns = grid
    height, width = pixels.shape[0] // rows, pixels.shape[1] // columns
    cut = pixels.reshape(rows, height, columns, width, 3).transpose(0, 2, 1, 3, 4)
    return cut.reshape(rows * columns, height, width, 3)


def normalized(
    tiles: NDArray[np.uint8], mean: tuple[float, float, float], std: tuple[float, float, float]
) -> NDArray[np.float32]:
    """(value / 255 - mean) / std of each channel, in float32."""
    # One division per gray level and channel instead of one per pixel.
    levels = (np.arange(256, dtype=np.float64)[:, None] / 255 - np.array(mean)) / np.array(std)
    table = levels.astype(np.float32)
    found = np.empty(tiles.shape, np.float32)
    for channel in range(3):
        np.take(table[:, channel], tiles[..., channel], out=found[..., channel])
    return found
