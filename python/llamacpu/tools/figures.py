"""Sums and functions with the same bits on every machine, and the uncertainties of means."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llamacpu import _native

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Figure", "covariance", "exponential", "finite", "mean_of", "percentile"]


class Figure(NamedTuple):
    """A measured number and its standard error."""

    value: float
    error: float


def exponential(x: float) -> float:
    """e to the power of x; infinity above 709."""
    return float(_native.exp(np.array([x], np.float64))[0])


def mean_of(values: NDArray[np.float64]) -> Figure:
    """The mean and its standard error; 0 for fewer than 2 values."""
    count = len(values)
    if not count:
        return Figure(math.nan, 0.0)
    mean = math.fsum(values) / count
    if count < 2 or not math.isfinite(mean):
        return Figure(mean, 0.0)
    return Figure(mean, math.sqrt(math.fsum((values - mean) ** 2) / count / (count - 1)))


def covariance(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """The covariance of the means of two equally long series."""
    count = len(a)
    if count < 2:
        return 0.0
    return math.fsum((a - math.fsum(a) / count) * (b - math.fsum(b) / count)) / count / (count - 1)


def percentile(ordered: NDArray[np.float64], percent: float) -> float:
    """The value below which `percent` of the sorted values lie, interpolated between neighbours."""
    place = percent / 100 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def finite(value: float) -> float | None:
    """The number; None for one that JSON does not have."""
    return value if math.isfinite(value) else None
