"""Element types of checkpoints, by the names that safetensors gives them, and their conversion to float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FLOATS", "RAW", "to_float32"]

# How the elements are stored. NumPy has no BF16 and no 8-bit floats: these are their bits.
RAW: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F8_E4M3": np.dtype(np.uint8),
    "F8_E5M2": np.dtype(np.uint8),
    "F8_E8M0": np.dtype(np.uint8),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
}
FLOATS = frozenset({"F8_E4M3", "F8_E5M2", "F8_E8M0", "F16", "BF16", "F32", "F64"})


def to_float32(raw: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """Return elements of the type `dtype`, given as `RAW[dtype]`, as float32.

    Exact for every type but F64, U32, I32, U64 and I64, which are rounded to the nearest.
    """
    if dtype == "BF16":
        bits = raw.astype(np.uint32)
        bits <<= np.uint32(16)
        return bits.view(np.float32)
    if dtype == "F8_E5M2":  # the upper half of an IEEE half
        halves = raw.astype(np.uint16)
        halves <<= np.uint16(8)
        return halves.view(np.float16).astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        converted: NDArray[np.float32] = _TABLES[dtype][raw] if dtype in _TABLES else raw.astype(np.float32)
    return converted


def _e4m3() -> NDArray[np.float32]:
    """The 256 values of the type that has no infinities and one NaN of each sign (OCP 8-bit floating point, 1.0)."""
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent == 0, mantissa / 8 * 2.0**-6, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
    value[code & 127 == 127] = np.nan
    return np.where(code & 128, -value, value).astype(np.float32)


def _e8m0() -> NDArray[np.float32]:
    """The 256 powers of two of the type that has no mantissa (OCP Microscaling Formats, 1.0); the last is NaN."""
    value = np.ldexp(1.0, np.arange(256) - 127)
    value[255] = np.nan
    return value.astype(np.float32)


_TABLES = {"F8_E4M3": _e4m3(), "F8_E8M0": _e8m0()}
