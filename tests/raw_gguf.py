"""GGUF files put together byte by byte, so that a test can write what no proper writer would."""

from __future__ import annotations

import struct
from collections.abc import Sequence

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
LAYOUTS = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i", F32: "f", BOOL: "B", U64: "Q", I64: "q", F64: "d"}


def text(value: str | bytes) -> bytes:
    """A length and the bytes."""
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def scalar(kind: int, value: int | float | str | bytes) -> bytes:
    """A type number and the value."""
    if isinstance(value, (str, bytes)):
        return struct.pack("<I", kind) + text(value)
    return struct.pack(f"<I{LAYOUTS[kind]}", kind, value)


def array(kind: int, values: Sequence[int | float | str | bytes], count: int | None = None) -> bytes:
    """An array; `count` overrides the number that is written."""
    head = struct.pack("<IIQ", ARRAY, kind, len(values) if count is None else count)
    return head + b"".join(scalar(kind, value)[4:] for value in values)


def pair(key: str | bytes, value: bytes) -> bytes:
    """A key and what `scalar` or `array` made."""
    return text(key) + value


def info(
    name: str | bytes, shape: Sequence[int], kind: int = 0, offset: int = 0, dimensions: int | None = None
) -> bytes:
    """One entry of the tensor table; `dimensions` overrides the number that is written."""
    count = len(shape) if dimensions is None else dimensions
    return text(name) + struct.pack(f"<I{len(shape)}qIQ", count, *shape, kind, offset)


def gguf_bytes(
    pairs: Sequence[bytes] = (),
    infos: Sequence[bytes] = (),
    data: bytes = b"",
    *,
    version: int = 3,
    pair_count: int | None = None,
    info_count: int | None = None,
    alignment: int = 32,
    magic: bytes = b"GGUF",
) -> bytes:
    """A whole file; the counts override the numbers that are written."""
    counts = (
        len(infos) if info_count is None else info_count,
        len(pairs) if pair_count is None else pair_count,
    )
    head = magic + struct.pack("<IQQ", version, *counts) + b"".join(pairs) + b"".join(infos)
    return head + bytes(-len(head) % alignment) + data
