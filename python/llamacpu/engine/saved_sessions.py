"""Sessions as files: tokens with their keys and values, so that a conversation continues without being recomputed.

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

The fingerprint is SHA-256 over the metadata of the architecture, the tensor table and 256 bytes from the middle of up
to 256 tensors spread over the file; this takes milliseconds for a file of any size. Models that differ in none of these
bytes count as the same; tokenizers and chat templates do not change what a session holds, and do not count.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from llamacpu import _native
from llamacpu.engine.adapter_set import AdapterSet, adapters_of, fingerprint_of
from llamacpu.engine.interfaces import KVType, ModelLike, SessionLike
from llamacpu.engine.pictures import FIRST_PICTURE_ID
from llamacpu.errors import LlamaCpuError, SessionError
from llamacpu.families.memory import state_size
from llamacpu.files import replacing

if TYPE_CHECKING:
    from llamacpu.gguf.file import GGUFFile

__all__ = ["Header", "fingerprint", "load", "read", "read_header", "read_note", "read_tokens", "save", "write"]

MAGIC = b"\x89LCPUS\r\n"
VERSION = 2
MAX_CONTEXT = 1 << 30

_HEADER = struct.Struct("<8sII32sIIQQQQI")
_STATES = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_KV_NUMBERS: dict[KVType, int] = {"f32": 0, "f16": 1, "q8_0": 8}
_KV_NAMES = {number: name for name, number in _KV_NUMBERS.items()}
_SAMPLED_TENSORS = 256
_SAMPLE_BYTES = 256
_COPY_BYTES = 1 << 20
_DAMAGED = "the file is damaged: save the session again"


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


def fingerprint(file: GGUFFile) -> bytes:
    """32 bytes that tell models apart; see the module docstring. Raises GGUFError for a closed file."""
    digest = hashlib.sha256(b"llamacpu model 1")
    architecture = str(file.metadata.get("general.architecture"))
    for key in sorted(key for key in file.metadata if key.startswith(f"{architecture}.")):
        value = file.metadata[key]
        shown = value.tobytes().hex() if isinstance(value, np.ndarray) else repr(value)
        digest.update(f"{key}={shown}\n".encode())
    tensors = sorted(file.tensors)
    for tensor in tensors:
        digest.update(f"{tensor.name} {tensor.type} {tensor.shape} {tensor.nbytes}\n".encode())
    samples = min(len(tensors), _SAMPLED_TENSORS)
    for place in range(samples):
        tensor = tensors[place * len(tensors) // samples]
        start = max(0, tensor.nbytes // 2 - _SAMPLE_BYTES // 2)
        digest.update(file.tensor_bytes(tensor, start, min(start + _SAMPLE_BYTES, tensor.nbytes)))
    return digest.digest()


def save(session: SessionLike, path: str | os.PathLike[str], note: bytes = b"") -> None:
    """Write the session to a file, which replaces an older one atomically; see `Session.save`."""
    with replacing(path, "a saved session", is_saved_session, private=True) as file:
        write(session, file, note)


def is_saved_session(file: BinaryIO) -> bool:
    """Whether an open file begins like a saved session of any version."""
    return file.read(len(MAGIC)) == MAGIC


def write(session: SessionLike, file: BinaryIO, note: bytes = b"") -> None:
    """Write the session to an open file."""
    # The copy is not affected by what another thread does to the session meanwhile.
    frozen = session.fork()
    model, tokens, kv_type = frozen.model, frozen.tokens, frozen.kv_type
    if any(token >= FIRST_PICTURE_ID for token in tokens) and model.config.cross_layers:
        raise SessionError(
            "the session holds pictures that cross-attention sees, which the format of saved sessions does not; save "
            "one without pictures, or truncate this one to before them"
        )
    header = Header(
        layout=_native.PAGE_LAYOUT,
        fingerprint=bytes.fromhex(fingerprint_of(model, adapters_of(frozen))),
        kv_type=kv_type,
        page_tokens=_native.PAGE_TOKENS,
        context=frozen.context,
        tokens=len(tokens),
        page_bytes=model.page_bytes(kv_type),
        note_bytes=len(note),
        state_bytes=state_size(model.config) if tokens else 0,
    )
    crc = 0

    def put(data: bytes) -> None:
        nonlocal crc
        crc = zlib.crc32(data, crc)
        file.write(data)

    first = _HEADER.pack(
        MAGIC, 2 if header.state_bytes else 1, header.layout, header.fingerprint, _KV_NUMBERS[kv_type],
        header.page_tokens, header.context, header.tokens, header.page_bytes, header.note_bytes,
        int(header.fingerprint.hex() != model.fingerprint),
    )  # fmt: skip
    if header.state_bytes:
        first += _STATES.pack(header.state_bytes)
    put(first + _CRC.pack(zlib.crc32(first)))
    put(np.array(tokens, dtype="<u4").tobytes())
    put(note)
    for index in range(header.pages + bool(header.state_bytes)):
        put(frozen.page(index))
    file.write(_CRC.pack(crc))


def load(
    model: ModelLike, path: str | os.PathLike[str], context: int | None = None, adapters: AdapterSet | None = None
) -> SessionLike:
    """Load the session of a file; see `Model.load_session`."""
    with open_regular(path) as file:
        return read(model, file, context, Path(path).name, adapters)


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file. Raises SessionError if it is not a regular one: opening a pipe would wait for its writer."""
    if not stat.S_ISREG(Path(path).stat().st_mode):
        raise SessionError(f"{Path(path).name}: not a regular file; expected one that Session.save wrote")
    return Path(path).open("rb")


def read(
    model: ModelLike,
    file: BinaryIO,
    context: int | None = None,
    name: str = "the saved session",
    adapters: AdapterSet | None = None,
) -> SessionLike:
    """Read the session of an open file, from its beginning to its end.

    `adapters` are those that it was computed with; None for the default of the model.

    Raises SessionError for a damaged file or the session of another model, ValueError for a `context` out of range.
    """
    if context is not None and not 1 <= context <= MAX_CONTEXT:
        raise ValueError(f"context is {context}; expected 1 to {MAX_CONTEXT}, or None for that of the saved session")
    adapters = adapters_of(model) if adapters is None else adapters
    header = read_header(file, name)
    if header.fingerprint != bytes.fromhex(fingerprint_of(model, adapters)):
        if header.adapted or adapters:
            made = "with" if header.adapted else "without"
            given = "none are given" if not adapters else "others are given" if header.adapted else "some are given"
            raise SessionError(
                f"{name}: the session was computed {made} LoRA adapters or control vectors, and {given}, or the model "
                "is another one; open the model, adapters and scales that it was saved with"
            )
        raise SessionError(
            f"{name}: a session of another model than {Path(model.path).name}; open the model that it was saved with"
        )
    if header.layout != _native.PAGE_LAYOUT or header.page_tokens != _native.PAGE_TOKENS:
        raise SessionError(
            f"{name}: keys and values are arranged as in another version of llamacpu (number {header.layout}, expected "
            f"{_native.PAGE_LAYOUT}); begin the conversation again"
        )
    expected = model.page_bytes(header.kv_type)
    if header.page_bytes != expected:
        raise SessionError(f"{name}: pages of {header.page_bytes} bytes, expected {expected}; {_DAMAGED}")
    expected = state_size(model.config) if header.tokens else 0
    if header.state_bytes != expected:
        raise SessionError(f"{name}: states of {header.state_bytes} bytes, expected {expected}; {_DAMAGED}")
    file.seek(0)
    crc = zlib.crc32(_exactly(file, header.header_bytes, name))
    data = _exactly(file, 4 * header.tokens, name)
    crc = zlib.crc32(data, crc)
    tokens = np.frombuffer(data, dtype="<u4").tolist()
    for start in range(0, header.note_bytes, _COPY_BYTES):
        crc = zlib.crc32(_exactly(file, min(_COPY_BYTES, header.note_bytes - start), name), crc)

    def pages() -> Iterator[bytes]:
        nonlocal crc
        for index in range(header.pages + bool(header.state_bytes)):
            page = _exactly(file, header.page_bytes if index < header.pages else header.state_bytes, name)
            crc = zlib.crc32(page, crc)
            yield page
        if file.read(_CRC.size + 1) != _CRC.pack(crc):
            raise SessionError(f"{name}: the checksum is wrong; {_DAMAGED}")

    try:
        length = header.context if context is None else context
        if adapters:
            owner: Any = model
            session: SessionLike = owner.restore(length, header.kv_type, tokens, pages(), adapters)
        else:
            session = model.restore(length, header.kv_type, tokens, pages())
    except ValueError as error:
        if isinstance(error, LlamaCpuError):
            raise
        raise SessionError(f"{name}: {error}; {_DAMAGED}") from None
    if tokens and _turns_otherwise(model, header.context, session.context):
        # Its keys were rotated with the other one of LongRoPE's tables, so they are recomputed.
        again: Any = model
        more = {"lora": adapters.lora, "control_vectors": adapters.control_vectors} if adapters else {}
        session = cast(SessionLike, again.session(session.context, header.kv_type, **more))
        session.forward(tokens, logits="none")
    return session


def _turns_otherwise(model: ModelLike, before: int, now: int) -> bool:
    """Whether a session with the new context has other rotation angles."""
    config = model.config
    original = config.rope_original_context
    return config.rope_scaling == "longrope" and (before > original) != (now > original)


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
        raise SessionError(f"{name}: {len(first)} bytes are too few for a header; {_DAMAGED}")
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
        raise SessionError(f"{name}: the checksum of the header is wrong; {_DAMAGED}")
    if kv_number not in _KV_NAMES or not 1 <= context <= MAX_CONTEXT or tokens > context or page_tokens < 1:
        raise SessionError(
            f"{name}: a header of {tokens} tokens in a context of {context}, {page_tokens} in a page, and keys of type "
            f"{kv_number}; {_DAMAGED}"
        )
    kv_type = _KV_NAMES[kv_number]
    header = Header(
        layout, model, kv_type, page_tokens, context, tokens, page_bytes, note_bytes, bool(flags & 1), state_bytes
    )
    if size != header.file_bytes:
        what = "cut short" if size < header.file_bytes else "too long"
        raise SessionError(f"{name}: the file is {what}: {size} bytes, expected {header.file_bytes}; {_DAMAGED}")
    return header


def read_tokens(file: BinaryIO, header: Header, name: str = "the saved session") -> list[int]:
    """Read the tokens of an open file; the checksum at its end is not verified."""
    file.seek(header.header_bytes)
    found: list[int] = np.frombuffer(_exactly(file, 4 * header.tokens, name), dtype="<u4").tolist()
    return found


def read_note(file: BinaryIO, header: Header, name: str = "the saved session") -> bytes:
    """Read the note of an open file; the checksum at its end is not verified."""
    file.seek(header.header_bytes + 4 * header.tokens)
    return _exactly(file, header.note_bytes, name)


def _exactly(file: BinaryIO, count: int, name: str) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise SessionError(f"{name}: the file became shorter while it was read; {_DAMAGED}")
    return data
