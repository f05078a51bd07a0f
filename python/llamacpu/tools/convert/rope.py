"""Factors by which frequencies of the rotary position embedding are divided."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.errors import CheckpointError

__all__ = ["llama3_factors", "long_factors"]

_LARGEST = 3.4e38


def llama3_factors(rope: dict[str, Any], size: int) -> NDArray[np.float32]:
    """Llama 3's factors: 1 for short wavelengths, `factor` for long ones, a smooth transition between them.

    rope: its parameters in config.json. size: of a head. Returns float32[size / 2].
    """
    try:
        base, factor = float(rope.get("rope_theta", 10000.0)), float(rope.get("factor", 8.0))
        low, high = float(rope.get("low_freq_factor", 1.0)), float(rope.get("high_freq_factor", 4.0))
        context = float(rope.get("original_max_position_embeddings", 8192))
        if not all(0 < number < _LARGEST for number in (base, factor, low, high, context)):
            raise ValueError(f"{base:g}, {factor:g}, {low:g}, {high:g}, {context:g}; expected positive ones")
        frequencies = np.float32(1) / np.float32(base) ** (np.arange(0, size, 2, dtype=np.float32) / np.float32(size))
        return np.array([_factor(f, factor, low, high, context) for f in frequencies], np.float32)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError) as error:
        raise CheckpointError(f"config.json: the parameters of the rotary embedding are not numbers: {error}") from None


def _factor(frequency: np.float32, factor: float, low: float, high: float, context: float) -> float:
    wavelength = np.float32(2 * math.pi) / frequency
    if wavelength < context / high:
        return 1.0
    if wavelength > context / low:
        return factor
    smooth = (np.float32(context) / wavelength - np.float32(low)) / np.float32(high - low)
    return float(np.float32(1) / ((np.float32(1) - smooth) / np.float32(factor) + smooth))


def long_factors(rope: dict[str, Any], size: int) -> tuple[list[float], list[float]] | None:
    """LongRoPE's tables for long and for short contexts, `size` / 2 numbers each; None if there are none."""
    long, short = rope.get("long_factor"), rope.get("short_factor")
    if not long and not short:
        return None
    for name, table in (("long_factor", long), ("short_factor", short)):
        if not isinstance(table, list) or len(table) != size // 2 or not all(_is_number(value) for value in table):
            raise CheckpointError(f"config.json: {name} of the rotary embedding: expected {size // 2} numbers")
    return list(long or ()), list(short or ())


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
