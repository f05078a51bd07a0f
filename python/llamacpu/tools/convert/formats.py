"""Floats as the bytes of a file's formats, rounded as the gguf package rounds them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FILE_TYPES", "as_bytes", "encoded", "format_of", "mxfp4_blocks"]

FILE_TYPES = {"f32": ("F32", 0), "f16": ("F16", 1), "q8_0": ("Q8_0", 7), "bf16": ("BF16", 32)}
"""Type of a file to the format of its matrices and general.file_type."""

_BLOCK = 32
_ALWAYS_FLOAT = (
    ".ffn_gate_inp.weight", ".ffn_gate_inp_shexp.weight", ".ssm_conv1d.weight", ".indexer.proj.weight",
)  # fmt: skip
_TABLES = ("position_embd.weight", "token_types.weight")


def format_of(name: str, shape: tuple[int, ...], chosen: str, routers: bool = False) -> str:
    """The format in which a tensor of this name and shape is stored in a file whose matrices have the chosen one.

    routers: whether the matrices that choose experts have it, too; they are F32 otherwise.
    """
    if len(shape) <= 1 or name.endswith(("_norm.weight", *_TABLES)):
        return "F32"
    if name.endswith(_ALWAYS_FLOAT) and not routers:
        return "F32"
    if not name.endswith(".weight"):
        return "F32"
    return "F16" if chosen == "Q8_0" and shape[-1] % _BLOCK else chosen


def encoded(values: NDArray[np.float32], format: str) -> NDArray[Any]:
    """The numbers in a format, as an array of its bytes or elements; for Q8_0 whole rows are expected."""
    if format == "F32":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        if format == "F16":
            return values.astype(np.float16)
        if format == "BF16":
            return _bfloat16(values)
        return _q8_0(values)


def as_bytes(values: NDArray[Any]) -> bytes:
    """The bytes of an array, little-endian."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def mxfp4_blocks(codes: NDArray[np.uint8], scales: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """MXFP4 blocks of a file: a scale, then 16 bytes with elements i and i + 16 of the block in byte i.

    codes: [..., blocks, 16], elements 2 i and 2 i + 1 in byte i; scales: [..., blocks]. Returns [..., blocks, 17].
    """
    elements = np.stack([codes & 15, codes >> 4], axis=-1).reshape(*codes.shape[:-1], 32)
    packed = elements[..., :16] | (elements[..., 16:] << 4)
    return np.concatenate([scales[..., None], packed], axis=-1)


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(values).view(np.uint32)
    # To the nearest, ties to even; only a NaN could overflow, and it stays one and becomes quiet.
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    is_nan = np.isnan(values)
    return np.where(is_nan, (bits >> 16) | 0x40, rounded).astype(np.uint16) if is_nan.any() else rounded


def _q8_0(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    blocks = values.reshape(-1, _BLOCK)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(scale == 0, np.float32(0), np.float32(1) / scale)
    scaled = blocks * inverse
    # Halves are rounded away from zero.
    magnitude = np.abs(scaled)
    floored = np.floor(magnitude)
    quants = (np.sign(scaled) * (floored + np.floor(2 * (magnitude - floored)))).astype(np.int8)
    return np.concatenate([scale.astype(np.float16).view(np.uint8), quants.view(np.uint8)], axis=1)
