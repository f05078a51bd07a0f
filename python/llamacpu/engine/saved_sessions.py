"""Sessions as files (`llamacpu.engine.session_format`), so that a conversation continues without being recomputed."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from llamacpu import _native
from llamacpu.engine.adapter_set import AdapterSet, adapters_of, fingerprint_of
from llamacpu.engine.interfaces import ModelLike, SessionLike
from llamacpu.engine.session_format import (
    DAMAGED,
    MAX_CONTEXT,
    Header,
    checksum,
    exactly,
    is_saved_session,
    open_regular,
    packed,
    packed_pictures,
    read_header,
    read_pictures,
)
from llamacpu.errors import LlamaCpuError, SessionError
from llamacpu.families.memory import state_size
from llamacpu.files import replacing

__all__ = ["load", "read", "save", "write"]

_COPY_BYTES = 1 << 20


def save(session: SessionLike, path: str | os.PathLike[str], note: bytes = b"") -> None:
    """Write the session to a file, which replaces an older one atomically; see `Session.save`."""
    with replacing(path, "a saved session", is_saved_session, private=True) as file:
        write(session, file, note)


def write(session: SessionLike, file: BinaryIO, note: bytes = b"") -> None:
    """Write the session to an open file."""
    # The copy is not affected by what another thread does to the session meanwhile.
    frozen = session.fork()
    model, tokens, kv_type = frozen.model, frozen.tokens, frozen.kv_type
    pictures = frozen.saved_pictures()
    states = sum(picture[-1] for picture in pictures)
    computed_by = fingerprint_of(model, adapters_of(frozen))
    header = Header(
        layout=_native.PAGE_LAYOUT,
        fingerprint=bytes.fromhex(computed_by),
        kv_type=kv_type,
        page_tokens=_native.PAGE_TOKENS,
        context=frozen.context,
        tokens=len(tokens),
        page_bytes=model.page_bytes(kv_type),
        note_bytes=len(note),
        adapted=computed_by != model.fingerprint,
        state_bytes=state_size(model.config) if tokens else 0,
        pictures=len(pictures),
        cross_states=states,
        cross_page_bytes=model.cross_page_bytes(kv_type) if states else 0,
    )
    crc = 0

    def put(data: bytes) -> None:
        nonlocal crc
        crc = zlib.crc32(data, crc)
        file.write(data)

    put(packed(header))
    put(np.array(tokens, dtype="<u4").tobytes())
    put(note)
    put(packed_pictures(pictures))
    for index, _ in enumerate(header.page_sizes):
        put(frozen.page(index))
    file.write(checksum(crc))


def load(
    model: ModelLike, path: str | os.PathLike[str], context: int | None = None, adapters: AdapterSet | None = None
) -> SessionLike:
    """Load the session of a file; see `Model.load_session`."""
    with open_regular(path) as file:
        return read(model, file, context, Path(path).name, adapters)


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
        raise SessionError(f"{name}: pages of {header.page_bytes} bytes, expected {expected}; {DAMAGED}")
    expected = state_size(model.config) if header.tokens else 0
    if header.state_bytes != expected:
        raise SessionError(f"{name}: states of {header.state_bytes} bytes, expected {expected}; {DAMAGED}")
    expected = model.cross_page_bytes(header.kv_type) if header.cross_states else 0
    if header.cross_page_bytes != expected:
        raise SessionError(
            f"{name}: pages of cross-attention of {header.cross_page_bytes} bytes, expected {expected}; {DAMAGED}"
        )
    file.seek(0)
    crc = zlib.crc32(exactly(file, header.header_bytes, name))
    data = exactly(file, 4 * header.tokens, name)
    crc = zlib.crc32(data, crc)
    tokens = np.frombuffer(data, dtype="<u4").tolist()
    for start in range(0, header.note_bytes, _COPY_BYTES):
        crc = zlib.crc32(exactly(file, min(_COPY_BYTES, header.note_bytes - start), name), crc)
    data = exactly(file, header.picture_bytes, name)
    crc = zlib.crc32(data, crc)
    pictures = read_pictures(data, name)
    if sum(picture[-1] for picture in pictures) != header.cross_states:
        raise SessionError(
            f"{name}: {header.cross_states} states of cross-attention are not those of its pictures; {DAMAGED}"
        )

    def pages() -> Iterator[bytes]:
        nonlocal crc
        for size in header.page_sizes:
            page = exactly(file, size, name)
            crc = zlib.crc32(page, crc)
            yield page
        if file.read(len(checksum(0)) + 1) != checksum(crc):
            raise SessionError(f"{name}: the checksum is wrong; {DAMAGED}")

    try:
        length = header.context if context is None else context
        owner: Any = model
        further: dict[str, Any] = {"adapters": adapters} if adapters else {}
        further |= {"pictures": pictures} if pictures else {}
        session: SessionLike = owner.restore(length, header.kv_type, tokens, pages(), **further)
    except ValueError as error:
        if isinstance(error, LlamaCpuError):
            raise
        raise SessionError(f"{name}: {error}; {DAMAGED}") from None
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
