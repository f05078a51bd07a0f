"""Saved sessions: they go on to the last bit, and a file that is not sound is an error and nothing worse."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import llamacpu
from llamacpu import SessionError
from llamacpu.engine import saved_sessions, session_format
from llamacpu.model import Model, Session
from test_forward import tokens_for
from tiny_models import VARIANTS, write_model

pytestmark = pytest.mark.instruction_set

TinyModel = Callable[..., Path]
HEADER = struct.Struct("<8sII32sIIQQQQI")
FIELDS = ["magic", "version", "layout", "fingerprint", "kv", "page_tokens", "context", "tokens", "page_bytes", "note"]


@pytest.fixture(scope="module")
def model(tiny_model: TinyModel) -> Iterator[Model]:
    with Model(tiny_model("gqa"), threads=2) as model:
        yield model


@pytest.fixture(scope="module")
def sound(model: Model) -> bytes:
    """The bytes of a saved session of 70 tokens, with a note."""
    session = model.session(context=100)
    session.forward(tokens_for(model, 70), logits="none")
    return written(session, b"a note")


def written(session: Session, note: bytes = b"") -> bytes:
    file = io.BytesIO()
    saved_sessions.write(session, file, note)
    return file.getvalue()


def changed(data: bytes, **fields: Any) -> bytes:
    """The file with other numbers in its header, and right checksums."""
    values = dict(zip(FIELDS, HEADER.unpack(data[: HEADER.size]), strict=False)) | fields
    header = HEADER.pack(*values.values(), 0)
    body = header + struct.pack("<I", zlib.crc32(header)) + data[HEADER.size + 4 : -4]
    return body + struct.pack("<I", zlib.crc32(body))


# --- Sound files ---


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_loaded_session_goes_on_to_the_last_bit(model: Model, tmp_path: Path, data: st.DataObject) -> None:
    kv_type: Any = data.draw(st.sampled_from(["f32", "f16", "q8_0"]))
    session = model.session(context=300, kv_type=kv_type)
    count = data.draw(st.integers(0, 200))
    if count:
        session.forward(tokens_for(model, count), logits="none")
    path = tmp_path / "chat.session"
    session.save(path)
    loaded = model.load_session(path)
    assert (loaded.tokens, loaded.context, loaded.kv_type) == (session.tokens, 300, kv_type)
    assert loaded.nbytes == session.nbytes
    more = tokens_for(model, data.draw(st.integers(1, 90)), seed=1)
    assert np.array_equal(loaded.forward(more, logits="all"), session.forward(more, logits="all"))
    loaded.truncate(count // 2)
    fork = loaded.fork()
    assert np.array_equal(fork.forward([1]), loaded.forward([1]))


@pytest.mark.parametrize("variant", ["layers", "valuedim", "mixtral"])
def test_layers_of_any_shape(tiny_model: TinyModel, tmp_path: Path, variant: str) -> None:
    with Model(tiny_model(variant), threads=1) as model:
        session = model.session()
        session.forward(tokens_for(model, 80), logits="none")
        session.save(tmp_path / "a")
        assert np.array_equal(model.load_session(tmp_path / "a").forward([1]), session.forward([1]))


def test_another_process_and_another_copy_of_the_model_may_load(tiny_model: TinyModel, tmp_path: Path) -> None:
    with Model(tiny_model("gqa"), threads=1) as first:
        session = first.session()
        session.forward([1, 2, 3], logits="none")
        session.save(tmp_path / "a")
        expected = session.forward([4])
    copy = write_model(tmp_path / "copy.gguf", VARIANTS["gqa"])
    with Model(copy, threads=2) as second:
        assert np.array_equal(second.load_session(tmp_path / "a").forward([4]), expected)


def test_the_file_depends_on_the_conversation_alone(model: Model) -> None:
    """Nothing that was forgotten, and nothing that was in the memory before, is in the file."""
    for kv_type in ("f32", "f16", "q8_0"):
        plain = model.session(context=200, kv_type=kv_type)  # type: ignore[arg-type]
        plain.forward(tokens_for(model, 70), logits="none")
        rewound = model.session(context=200, kv_type=kv_type)  # type: ignore[arg-type]
        rewound.forward(tokens_for(model, 70) + tokens_for(model, 100, seed=9), logits="none")
        rewound.truncate(70)
        assert written(plain) == written(rewound)


def test_a_context_may_be_chosen(model: Model, sound: bytes) -> None:
    assert saved_sessions.read(model, io.BytesIO(sound)).context == 100
    assert saved_sessions.read(model, io.BytesIO(sound), 80).context == 80
    with pytest.raises(llamacpu.ContextOverflow):
        saved_sessions.read(model, io.BytesIO(sound), 60)
    for context in (0, -1, 2**31, 2**70):
        with pytest.raises(ValueError, match="context is"):
            saved_sessions.read(model, io.BytesIO(sound), context)


@pytest.mark.instruction_set(one_in=None)
def test_parts_can_be_read_alone(model: Model, sound: bytes) -> None:
    file = io.BytesIO(sound)
    header = session_format.read_header(file)
    assert (header.tokens, header.context, header.kv_type) == (70, 100, "f16")
    assert session_format.read_tokens(file, header) == tokens_for(model, 70)
    assert session_format.read_note(file, header) == b"a note"


@pytest.mark.instruction_set(one_in=None)
def test_a_file_is_replaced_at_once_or_not_at_all(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "chat.session"
    path.write_bytes(session_format.MAGIC + b"an older one")
    session = model.session()
    session.forward([1, 2], logits="none")
    session.save(path)
    good = path.read_bytes()
    assert good == written(session)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def fail(session: Session, file: io.BytesIO, note: bytes = b"") -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_sessions, "write", fail)
    with pytest.raises(OSError, match="No space"):
        session.save(path)
    assert path.read_bytes() == good
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        session.save(tmp_path / "nowhere" / "a")


# --- Fingerprints ---


@pytest.mark.instruction_set(one_in=None)
def test_models_have_different_fingerprints(tiny_model: TinyModel, tmp_path: Path) -> None:
    same = write_model(tmp_path / "renamed.gguf", VARIANTS["gqa"])
    scaled = replace(VARIANTS["gqa"], extra={"attention.scale": 0.3})
    paths = [
        tiny_model("gqa"),
        tiny_model("mha"),
        tiny_model("gqa", seed=1),
        tiny_model("gqa", "F16"),
        tiny_model(scaled),
    ]
    found = []
    for path in [*paths, same]:
        with Model(path, threads=1) as model:
            found.append(model.fingerprint)
    assert len(set(found[:-1])) == len(paths)
    assert found[-1] == found[0]
    assert all(len(bytes.fromhex(text)) == 32 for text in found)


@pytest.mark.instruction_set(one_in=None)
def test_a_split_model_has_the_fingerprint_of_the_whole(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole.gguf", VARIANTS["gqa"])
    split = write_model(tmp_path / "split.gguf", VARIANTS["gqa"], tensors_per_file=5)
    with Model(whole, threads=1) as one, Model(split, threads=1) as several:
        assert one.fingerprint == several.fingerprint


def test_a_session_of_another_model_is_refused(tiny_model: TinyModel, sound: bytes) -> None:
    with (
        Model(tiny_model("gqa", seed=1), threads=1) as other,
        pytest.raises(SessionError, match="another model"),
    ):
        saved_sessions.read(other, io.BytesIO(sound))


# --- Files that are not sound ---


def refused(model: Model, data: bytes, match: str | None = None) -> None:
    with pytest.raises(SessionError, match=match) as caught:
        saved_sessions.read(model, io.BytesIO(data))
    assert "\n" not in str(caught.value)


@pytest.mark.instruction_set(one_in=None)
def test_every_length_but_the_right_one_is_refused(model: Model, sound: bytes) -> None:
    lengths = {*range(400), *range(0, len(sound), 211), *range(len(sound) - 200, len(sound))}
    for length in sorted(lengths):
        refused(model, sound[:length])
    refused(model, sound + b"\0", "too long")
    refused(model, sound[:-1], "cut short")


@pytest.mark.instruction_set(one_in=None)
def test_every_flipped_bit_is_noticed(model: Model, sound: bytes) -> None:
    places = [
        *range(HEADER.size + 4),
        *random.Random(0).sample(range(HEADER.size + 4, len(sound)), 300),
        len(sound) - 1,
    ]
    for place in places:
        for bit in range(8):
            data = bytearray(sound)
            data[place] ^= 1 << bit
            refused(model, bytes(data))


@pytest.mark.instruction_set(one_in=None)
@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"magic": b"GGUF\3\0\0\0"}, "not a saved session"),
        ({"version": 4}, "newer"),
        ({"version": 3}, "checksum"),
        ({"version": 2**32 - 1}, "newer"),
        ({"version": 0}, "damaged"),
        ({"layout": 2}, "arranged"),
        ({"fingerprint": bytes(32)}, "another model"),
        ({"kv": 2}, "damaged"),
        ({"kv": 0}, "pages of"),
        ({"page_tokens": 0}, "damaged"),
        ({"page_tokens": 2**32 - 1}, "damaged"),
        ({"page_tokens": 65}, "arranged"),
        ({"context": 0}, "damaged"),
        ({"context": 69}, "damaged"),
        ({"context": 2**64 - 1}, "damaged"),
        ({"tokens": 2**64 - 1, "context": 2**64 - 1}, "damaged"),
        ({"tokens": 2**30, "context": 2**30}, "cut short"),
        ({"tokens": 69}, "too long"),
        ({"tokens": 0}, "too long"),
        ({"page_bytes": 2**64 - 1}, "cut short"),
        ({"page_bytes": 0}, "too long"),
        ({"note": 2**64 - 1}, "cut short"),
        ({"note": 7}, "cut short"),
    ],
)
def test_headers_that_lie_are_refused(model: Model, sound: bytes, fields: dict[str, Any], match: str) -> None:
    data = changed(sound, **fields)
    tracemalloc.start()
    try:
        refused(model, data, match)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(sound)
    finally:
        tracemalloc.stop()


@pytest.mark.instruction_set(one_in=None)
def test_an_unchanged_header_is_sound(model: Model, sound: bytes) -> None:
    assert changed(sound) == sound
    assert saved_sessions.read(model, io.BytesIO(changed(sound, context=2**30))).context == 2**30


@pytest.mark.instruction_set(one_in=None)
def test_tokens_outside_the_vocabulary_are_refused(model: Model, sound: bytes) -> None:
    start = HEADER.size + 4
    # Ids from 2**31 on stand for rows of pictures.
    for token in (model.vocab_size, 2**31 - 1):
        refused(model, changed(sound[:start] + struct.pack("<I", token) + sound[start + 4 :]), "vocabulary")


def test_any_keys_and_values_can_be_run(model: Model, sound: bytes) -> None:
    """Whoever can write the checksum can write the pages: what comes out is nonsense, but it comes out."""
    header = session_format.read_header(io.BytesIO(sound))
    start = HEADER.size + 4 + 4 * header.tokens + header.note_bytes
    size = header.pages * header.page_bytes
    for seed, noise in enumerate((np.random.default_rng(0).bytes(size), b"\xff" * size, b"\x7f" * size)):
        loaded = saved_sessions.read(model, io.BytesIO(changed(sound[:start] + noise + sound[-4:])))
        assert loaded.forward([seed]).shape == (model.vocab_size,)


@pytest.mark.instruction_set(one_in=None)
def test_what_is_no_file_is_refused(model: Model, tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="not a regular file"):
        model.load_session(tmp_path)
    with pytest.raises(FileNotFoundError):
        model.load_session(tmp_path / "missing")
    (tmp_path / "empty").touch()
    with pytest.raises(SessionError, match="empty: not a saved session"):
        model.load_session(tmp_path / "empty")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(SessionError, match="not a regular file"):
            model.load_session(tmp_path / "pipe")
