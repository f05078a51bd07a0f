"""The format of saved sessions: a header, tokens, a note of the program that wrote the file, keys and values.

All values are little-endian:

    position  bytes
    0         8     magic
    8         4     version of the format: 2 if there are states, 1 otherwise
    12        4     number of the layout of keys and values in a page
    16        32    fingerprint of the model
    48        4     how keys and values are stored, by ggml's type numbers: 0 F32, 1 F16, 8 Q8_0
    52        4     tokens in a page
    56        8     context
    64        8     tokens
    72        8     bytes of a page
    80        8     bytes of the note
    88        4     1 if the tokens went through adapters or control vectors, which the fingerprint includes; else 0
    92        8     version 2 only: bytes of the states of recurrent layers
              4     CRC-32 of the bytes before
              4 bytes per token, the note (bytes for the program that wrote the file), the pages, the states
              4     CRC-32 of all bytes before

Tokens of 2^31 and above stand for rows of pictures.

All sizes are checked against the length of the file before anything is allocated, and the session is created only
after the last checksum has been verified. A crafted file can contain wrong keys and values, and so change what the
model says, but nothing else.

The fingerprint is that of `llamacpu.engine.fingerprints`.
"""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from llamacpu.engine.interfaces import KVType
from llamacpu.errors import SessionError

__all__ = [
    "DAMAGED",
    "MAX_CONTEXT",
    "Header",
    "checksum",
    "exactly",
    "is_saved_session",
    "open_regular",
    "packed",
    "read_header",
    "read_note",
    "read_tokens",
]

MAGIC = b"\x89LCPUS\r\n"
VERSION = 2
MAX_CONTEXT = 1 << 30

_HEADER = struct.Struct("<8sII32sIIQQQQI")
_STATES = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_KV_NUMBERS: dict[KVType, int] = {"f32": 0, "f16": 1, "q8_0": 8}
_KV_NAMES = {number: name for name, number in _KV_NUMBERS.items()}
DAMAGED = "the file is damaged: save the session again"


class Header(NamedTuple):
    """The fields at the beginning of the file."""

    layout: int
    fingerprint: bytes
    kv_type: KVType
    page_tokens: int
    context: int
    tokens: int
    page_bytes: int
    note_bytes: int
    adapted: bool = False
    """whether the tokens have gone through adapters, which the fingerprint includes"""
    state_bytes: int = 0
    """bytes of the states of recurrent layers behind the pages"""

    @property
    def header_bytes(self) -> int:
        """Length of the header."""
        return _HEADER.size + _STATES.size * bool(self.state_bytes) + _CRC.size

    @property
    def pages(self) -> int:
        """Number of pages."""
        return -(-self.tokens // self.page_tokens)

    @property
    def file_bytes(self) -> int:
        """Length that the file must have."""
        contents = 4 * self.tokens + self.note_bytes + self.pages * self.page_bytes + self.state_bytes
        return self.header_bytes + contents + _CRC.size


def packed(header: Header) -> bytes:
    """The header as bytes, with its checksum."""
    first = _HEADER.pack(
        MAGIC, 2 if header.state_bytes else 1, header.layout, header.fingerprint, _KV_NUMBERS[header.kv_type],
        header.page_tokens, header.context, header.tokens, header.page_bytes, header.note_bytes, int(header.adapted),
    )  # fmt: skip
    if header.state_bytes:
        first += _STATES.pack(header.state_bytes)
    return first + checksum(zlib.crc32(first))


def checksum(crc: int) -> bytes:
    """A CRC-32 as it is written."""
    return _CRC.pack(crc)


def is_saved_session(file: BinaryIO) -> bool:
    """Whether an open file begins like a saved session of any version."""
    return file.read(len(MAGIC)) == MAGIC


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file. Raises SessionError if it is not a regular one: opening a pipe would wait for its writer."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise SessionError(f"{Path(path).name}: not a regular file; expected one that Session.save wrote")
    return Path(path).open("rb")


def read_header(file: BinaryIO, name: str = "the saved session") -> Header:
    """Read the header of an open file, checked for consistency and against the length of the file.

    Raises SessionError if it is wrong, or newer than this version reads.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    first = file.read(_HEADER.size + _CRC.size)
    if first[: len(MAGIC)] != MAGIC:
        raise SessionError(f"{name}: not a saved session: it starts with {first[:8]!r}, expected {MAGIC!r}")
    if len(first) < _HEADER.size + _CRC.size:
        raise SessionError(f"{name}: {len(first)} bytes are too few for a header; {DAMAGED}")
    _, version, layout, model, kv_number, page_tokens, context, tokens, page_bytes, note_bytes, flags = _HEADER.unpack(
        first[: _HEADER.size]
    )
    if version > VERSION:
        raise SessionError(
            f"{name}: written in version {version} of the format, newer than {VERSION}; install a newer release"
        )
    state_bytes = 0
    if version == 2:
        first += file.read(_STATES.size)
        (state_bytes,) = _STATES.unpack(first[_HEADER.size :][: _STATES.size].ljust(_STATES.size, b"\0"))
    if (
        _CRC.pack(zlib.crc32(first[: -_CRC.size])) != first[-_CRC.size :]
        or version < 1
        or (version == 2) != (state_bytes > 0)
    ):
        raise SessionError(f"{name}: the checksum of the header is wrong; {DAMAGED}")
    if kv_number not in _KV_NAMES or not 1 <= context <= MAX_CONTEXT or tokens > context or page_tokens < 1:
        raise SessionError(
            f"{name}: a header of {tokens} tokens in a context of {context}, {page_tokens} in a page, and keys of type "
            f"{kv_number}; {DAMAGED}"
        )
    kv_type = _KV_NAMES[kv_number]
    header = Header(
        layout, model, kv_type, page_tokens, context, tokens, page_bytes, note_bytes, bool(flags & 1), state_bytes
    )
    if size != header.file_bytes:
        what = "cut short" if size < header.file_bytes else "too long"
        raise SessionError(f"{name}: the file is {what}: {size} bytes, expected {header.file_bytes}; {DAMAGED}")
    return header


def read_tokens(file: BinaryIO, header: Header, name: str = "the saved session") -> list[int]:
    """Read the tokens of an open file; the checksum at its end is not verified."""
    file.seek(header.header_bytes)
    found: list[int] = np.frombuffer(exactly(file, 4 * header.tokens, name), dtype="<u4").tolist()
    return found


def read_note(file: BinaryIO, header: Header, name: str = "the saved session") -> bytes:
    """Read the note of an open file; the checksum at its end is not verified."""
    file.seek(header.header_bytes + 4 * header.tokens)
    return exactly(file, header.note_bytes, name)


def exactly(file: BinaryIO, count: int, name: str) -> bytes:
    """Read so many bytes; raises SessionError if there are fewer."""
    data = file.read(count)
    if len(data) != count:
        raise SessionError(f"{name}: the file became shorter while it was read; {DAMAGED}")
    return data
