"""NVFP4, Q1_0 and Q2_0 in exact arithmetic, and for versions of the gguf package that do not know them."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
from gguf import quants
from numpy.typing import NDArray

__all__ = ["E2M1", "E4M3"]

E2M1 = np.array([0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12], np.float32)
"""Twice the values of four-bit floats."""
E4M3 = np.array(
    [
        bits % 128 * 2.0**-10 if bits % 128 < 8 else (8 + bits % 8) * 2.0 ** (bits % 128 // 8 - 11)
        for bits in range(256)
    ],
    np.float32,
)
"""Half of the value of each unsigned E4M3 float; the sign bit is ignored, and 127 is no number and stands for 0."""
E4M3[127] = 0


def _nvfp4(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    quants = blocks[:, 4:].reshape(-1, 4, 8)
    values = E2M1[np.concatenate([quants & 15, quants >> 4], axis=-1)]
    return (values * E4M3[blocks[:, :4]][..., None]).reshape(len(blocks), 64)


def _scales(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)


def _q1_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    bits = np.unpackbits(blocks[:, 2:], axis=-1, bitorder="little")
    return (2 * bits.astype(np.float32) - 1) * _scales(blocks)


def _q2_0(blocks: NDArray[np.uint8]) -> NDArray[np.float32]:
    pairs = blocks[:, 2:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3
    return (pairs.reshape(len(blocks), 64).astype(np.float32) - 1) * _scales(blocks)


def _write_q1_0(blocks: NDArray[np.float32]) -> NDArray[np.uint8]:
    # Sums of one number after the other, as in ggml.
    d = np.cumsum(np.abs(blocks), axis=-1, dtype=np.float32)[:, -1:] / np.float32(128)
    return np.hstack([d.astype("<f2").view(np.uint8), np.packbits(blocks >= 0, axis=-1, bitorder="little")])


def _add(name: str, number: int, size: tuple[int, int]) -> Any:
    """The type with that name, which is added to the package's table if it is not there."""
    types: Any = gguf.GGMLQuantizationType
    if name not in types.__members__:
        member = int.__new__(types, number)
        member._name_, member._value_ = name, number
        types._member_map_[name] = types._value2member_map_[number] = member
        types._member_names_.append(name)
    kind = types[name]
    gguf.GGML_QUANT_SIZES.setdefault(kind, size)
    return kind


def _read_by(kind: Any, read: Any, write: Any = None) -> None:
    if kind in quants._type_traits:
        return
    members = {"dequantize_blocks": classmethod(lambda cls, blocks: read(blocks))}
    if write is not None:
        members["quantize_blocks"] = classmethod(lambda cls, blocks: write(blocks))
    base: Any = getattr(quants, "__Quant")
    type(kind.name, (base,), members, qtype=kind)


_read_by(_add("NVFP4", 40, (64, 36)), _nvfp4)
_read_by(_add("Q1_0", 41, (128, 18)), _q1_0, _write_q1_0)
_read_by(_add("Q2_0", 42, (64, 18)), _q2_0)
