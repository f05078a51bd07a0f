"""The format of saved sessions: a header, tokens, a note of the program that wrote the file, keys and values.

All values are little-endian:

    position  bytes
    0         8     magic
    8         4     version of the format: 3 if there are pictures, 2 if there are states, 1 otherwise
    12        4     number of the layout of keys and values in a page
    16        32    fingerprint of the model
    48        4     how keys and values are stored, by ggml's type numbers: 0 F32, 1 F16, 8 Q8_0
    52        4     tokens in a page
    56        8     context
    64        8     tokens
    72        8     bytes of a page
    80        8     bytes of the note
    88        4     1 if the tokens went through adapters or control vectors, which the fingerprint includes; else 0
    92        8     versions 2 and 3: bytes of the states of recurrent layers
    100       8     version 3: number of pictures
    108       8     version 3: states of all pictures that cross-attention sees
    116       8     version 3: bytes of a page of their keys and values
              4     CRC-32 of the bytes before
              4 bytes per token, the note (bytes for the program that wrote the file), 56 bytes per picture, the
              pages, the states of recurrent layers, the pages of cross-attention
              4     CRC-32 of all bytes before

Tokens of 2^31 and above stand for rows of pictures. Of a picture, the file holds: index of its first token (8), number
of tokens (8), flags (4: 1 if its rows see each other, 2 for states of cross-attention, 4 if its height and width are
known), id of the placeholder (4), number of states (8), number of its first row (8), height and width in rows (8 each).

All sizes are checked against the length of the file before anything is allocated, and the session is created only
after the last checksum has been verified. A crafted file can contain wrong keys and values, and so change what the
model says, but nothing else.

The fingerprint is that of `llamacpu.engine.fingerprints`.
"""

from __future__ import annotations

import io
import itertools
import os
import stat
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from llamacpu.engine.interfaces import KVType, SavedPicture
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
    "packed_pictures",
    "read_header",
    "read_note",
    "read_pictures",
    "read_tokens",
]

MAGIC = b"\x89LCPUS\r\n"
VERSION = 3
MAX_CONTEXT = 1 << 30

_HEADER = struct.Struct("<8sII32sIIQQQQI")
_STATES = struct.Struct("<Q")
_PICTURES = struct.Struct("<QQQ")
_PICTURE = struct.Struct("<QQIIQQQQ")
_TOGETHER, _CROSS, _GRID = 1, 2, 4
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
    """bytes of the states of recurrent layers after the pages"""
    pictures: int = 0
    """number of pictures whose places and sizes are known"""
    cross_states: int = 0
    """states of these that cross-attention sees"""
    cross_page_bytes: int = 0
    """bytes of a page of their keys and values"""

    @property
    def header_bytes(self) -> int:
        """Length of the header."""
        more = {1: 0, 2: _STATES.size, 3: _STATES.size + _PICTURES.size}[self.version]
        return _HEADER.size + more + _CRC.size

    @property
    def version(self) -> int:
        """Version of the format."""
        return 3 if self.pictures else 2 if self.state_bytes else 1

    @property
    def pages(self) -> int:
        """Number of pages."""
        return -(-self.tokens // self.page_tokens)

    @property
    def picture_bytes(self) -> int:
        """Bytes of what the file says of pictures."""
        return self.pictures * _PICTURE.size

    @property
    def page_sizes(self) -> Iterator[int]:
        """Bytes of everything that `Session.page` gives, in order."""
        yield from itertools.repeat(self.page_bytes, self.pages)
        yield from [self.state_bytes] * bool(self.state_bytes)
        yield from itertools.repeat(self.cross_page_bytes, -(-self.cross_states // self.page_tokens))

    @property
    def file_bytes(self) -> int:
        """Length that the file must have."""
        pages = self.pages * self.page_bytes + self.state_bytes
        pages += -(-self.cross_states // self.page_tokens) * self.cross_page_bytes
        contents = 4 * self.tokens + self.note_bytes + self.picture_bytes + pages
        return self.header_bytes + contents + _CRC.size


def packed(header: Header) -> bytes:
    """The header as bytes, with its checksum."""
    first = _HEADER.pack(
        MAGIC, header.version, header.layout, header.fingerprint, _KV_NUMBERS[header.kv_type],
        header.page_tokens, header.context, header.tokens, header.page_bytes, header.note_bytes, int(header.adapted),
    )  # fmt: skip
    if header.version > 1:
        first += _STATES.pack(header.state_bytes)
    if header.version > 2:
        first += _PICTURES.pack(header.pictures, header.cross_states, header.cross_page_bytes)
    return first + checksum(zlib.crc32(first))


def packed_pictures(pictures: Sequence[SavedPicture]) -> bytes:
    """What `Session.saved_pictures` says, as bytes."""
    found = b""
    for start, count, together, token, grid, states in pictures:
        flags = _TOGETHER * together | _CROSS * (token is not None) | _GRID * (grid is not None)
        found += _PICTURE.pack(start, count, flags, token or 0, states, *(grid or (0, 0, 0)))
    return found


def read_pictures(data: bytes, name: str = "the saved session") -> list[SavedPicture]:
    """The same, read. Whether they fit the tokens is checked where a session is made of them.

    Raises SessionError for a combination of flags that no file has.
    """
    found: list[SavedPicture] = []
    for start, count, flags, token, states, first, height, width in _PICTURE.iter_unpack(data):
        if flags not in (0, _TOGETHER, _CROSS, _GRID, _TOGETHER | _GRID):
            raise SessionError(f"{name}: a picture with the flags {flags}; {DAMAGED}")
        grid = (first, height, width) if flags & _GRID else None
        found.append((start, count, bool(flags & _TOGETHER), token if flags & _CROSS else None, grid, states))
    return found


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
    more = {2: _STATES.format, 3: _STATES.format + _PICTURES.format[1:]}.get(version, "<")
    first += file.read(struct.calcsize(more))
    state_bytes, pictures, cross_states, cross_page_bytes = (
        *struct.unpack(more, first[_HEADER.size :][: struct.calcsize(more)].ljust(struct.calcsize(more), b"\0")),
        *(0, 0, 0, 0),
    )[:4]
    if (
        _CRC.pack(zlib.crc32(first[: -_CRC.size])) != first[-_CRC.size :]
        or version < 1
        or version != (3 if pictures else 2 if state_bytes else 1)
    ):
        raise SessionError(f"{name}: the checksum of the header is wrong; {DAMAGED}")
    if kv_number not in _KV_NAMES or not 1 <= context <= MAX_CONTEXT or tokens > context or page_tokens < 1:
        raise SessionError(
            f"{name}: a header of {tokens} tokens in a context of {context}, {page_tokens} in a page, and keys of type "
            f"{kv_number}; {DAMAGED}"
        )
    kv_type = _KV_NAMES[kv_number]
    header = Header(
        layout, model, kv_type, page_tokens, context, tokens, page_bytes, note_bytes, bool(flags & 1), state_bytes,
        pictures, cross_states, cross_page_bytes,
    )  # fmt: skip
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
