"""Resizing as torchvision does it: two passes, along rows and then along columns, with weights of 16 bits.

Pillow's weights have 22 bits, and newer versions choose the order of the passes by the sizes; where a filter overshoots
the range of eight bits, the order matters. Models whose only processor is torchvision's are resized here. The method is
that of Pillow-SIMD (https://github.com/uploadcare/pillow-simd), which torchvision took over.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["resized_in_fixed_point"]

# Rows of the picture that are summed up at a time, so that the sums stay in the processor's cache.
_ROWS = 64


def resized_in_fixed_point(pixels: NDArray[np.uint8], size: tuple[int, int], kind: str) -> NDArray[np.uint8]:
    """The picture at another size, antialiased: uint8[height, width, 3]. kind: "bilinear" or "lanczos"."""
    height, width = size
    if pixels.shape[1] != width:
        pixels = _along_rows(pixels, width, kind)
    if pixels.shape[0] != height:
        turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
        pixels = np.ascontiguousarray(_along_rows(turned, height, kind).transpose(1, 0, 2))
    return pixels


def _along_rows(pixels: NDArray[np.uint8], length: int, kind: str) -> NDArray[np.uint8]:
    first, weights, precision = _weights(pixels.shape[1], length, kind)
    found = np.empty((len(pixels), length, 3), np.uint8)
    for start in range(0, len(pixels), _ROWS):
        rows = pixels[start : start + _ROWS]
        sums = np.full((len(rows), length, 3), 1 << (precision - 1), np.int32)
        for tap in range(weights.shape[1]):
            place = np.minimum(first + tap, pixels.shape[1] - 1)
            sums += rows[:, place] * weights[:, tap, None]
        found[start : start + _ROWS] = np.clip(sums >> precision, 0, 255)
    return found


def _weights(old: int, new: int, kind: str) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """The first of the pixels that go into each new one, their weights int32[new, taps], and the bits of a 1."""
    function, radius = _FILTERS[kind]
    scale = old / new
    stretch = max(scale, 1.0)
    reach = radius * stretch
    centers = scale * (np.arange(new) + 0.5)
    first = np.maximum((centers - reach + 0.5).astype(np.int64), 0)
    count = np.minimum((centers + reach + 0.5).astype(np.int64), old) - first
    taps = np.arange(int(count.max()))
    distance = (taps + first[:, None] - centers[:, None] + 0.5) * (1 / stretch)
    values = np.where(taps < count[:, None], function(distance), 0.0)
    values = values / values.sum(1, keepdims=True)
    precision = 0
    # The largest weight shall fit into 16 bits.
    while precision < 22 and int(0.5 + float(values.max()) * (1 << (precision + 1))) < 1 << 15:
        precision += 1
    scaled = values * (1 << precision)
    return first, np.trunc(np.where(scaled < 0, scaled - 0.5, scaled + 0.5)).astype(np.int32), precision


def _triangle(x: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.maximum(1 - np.abs(x), 0)
    return found


def _lanczos(x: NDArray[np.float64]) -> NDArray[np.float64]:
    inside = (x >= -3) & (x < 3)
    turn = np.where(x == 0, 1.0, x * math.pi)
    found = np.where(x == 0, 1.0, np.sin(turn) / turn * (np.sin(turn / 3) / (turn / 3)))
    return np.where(inside, found, 0.0)


_FILTERS: dict[str, tuple[Callable[[NDArray[np.float64]], NDArray[np.float64]], int]] = {
    "bilinear": (_triangle, 1),
    "lanczos": (_lanczos, 3),
}
