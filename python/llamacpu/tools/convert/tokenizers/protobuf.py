"""A reader of SentencePiece's model files: protocol buffers, of which only the fields are read that a GGUF file keeps.

Format: sentencepiece_model.proto of the SentencePiece project.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from llamacpu.errors import CheckpointError

__all__ = ["Piece", "PieceModel", "read_piece_model"]

UNIGRAM, BPE = 1, 2
NORMAL = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class Piece(NamedTuple):
    """A token; its type is that of a GGUF file: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte."""

    text: bytes
    score: float
    type: int


class PieceModel(NamedTuple):
    """The content of a tokenizer.model."""

    pieces: list[Piece]
    model_type: int
    """1 for a unigram vocabulary, 2 for BPE"""
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def read_piece_model(data: bytes, name: str) -> PieceModel:
    """Read a model file; CheckpointError naming `name` if it is not one."""
    try:
        return _model(data)
    except (ValueError, IndexError, struct.error) as error:
        raise CheckpointError(f"{name}: not a SentencePiece model ({error}); get it again") from None


def _model(data: bytes) -> PieceModel:
    pieces, kind, charsmap, prefix, remove = [], UNIGRAM, b"", True, True
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            pieces.append(_piece(value))
        elif field == 2 and isinstance(value, bytes):
            kind = next((v for f, v in _fields(value) if f == 3 and isinstance(v, int)), kind)
        elif field == 3 and isinstance(value, bytes):
            for inner, setting in _fields(value):
                if inner == 2 and isinstance(setting, bytes):
                    charsmap = setting
                prefix = bool(setting) if inner == 3 else prefix
                remove = bool(setting) if inner == 4 else remove
    if not pieces:
        raise ValueError("it has no tokens")
    return PieceModel(pieces, kind, charsmap, prefix, remove)


def _piece(data: bytes) -> Piece:
    text, score, kind = b"", 0.0, NORMAL
    for field, value in _fields(data):
        if field == 1 and isinstance(value, bytes):
            text = value
        elif field == 2 and isinstance(value, bytes):
            score = struct.unpack("<f", value)[0]
        elif field == 3 and isinstance(value, int):
            kind = value
    if not 1 <= kind <= 6:
        raise ValueError(f"a token has the type {kind}")
    return Piece(text, score, kind)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a message: an int for a varint, bytes for everything else."""
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            length, position = _varint(data, position)
        elif kind in (_FIXED32, _FIXED64):
            length = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"a field has the unknown kind {kind}")
        if length > len(data) - position:
            raise ValueError("it ends in the middle of a field")
        yield tag >> 3, data[position : position + length]
        position += length


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number has more than ten bytes")
