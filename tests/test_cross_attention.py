"""Several pictures that cross-attention sees: what each token sees, sessions that are saved, forked and cut."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llamacpu import Model
from llamacpu.engine import saved_sessions, session_format
from llamacpu.engine.pictures import FIRST_PICTURE_ID, CrossStates, MixedTokens
from llamacpu.errors import SessionError
from reference_cross_attention import CONFIG, PICTURE, reference, write_model

pytestmark = pytest.mark.instruction_set
STATES = 75
"""More than a page."""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, Any]]:
    path, values = write_model(tmp_path_factory.mktemp("cross") / "model.gguf")
    with Model(path, threads=2) as model:
        yield model, values


def pictures(count: int, states: int = STATES) -> list[CrossStates]:
    random = np.random.default_rng(5)
    tables = [random.standard_normal((states + at, CONFIG["width"])).astype(np.float32) for at in range(count)]
    return [CrossStates(table, b"%d" % at, PICTURE) for at, table in enumerate(tables)]


def sequence(places: list[int], length: int = 90) -> MixedTokens:
    """A text with a picture at each of these places."""
    ids = np.random.default_rng(3).integers(0, CONFIG["vocabulary"], length).tolist()
    found: list[Any] = list(ids)
    for place, picture in zip(places, pictures(len(places)), strict=True):
        found[place] = picture
    return MixedTokens(found)


PLACES = [[0], [7], [0, 40], [5, 6, 50], [10, 30, 31, 32, 80]]


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("places", PLACES)
def test_a_token_sees_the_last_picture_and_those_next_to_it(opened: tuple[Model, Any], places: list[int]) -> None:
    model, values = opened
    given = sequence(places)
    exact = reference(values, given)
    got = model.session(kv_type="f32").forward(given, logits="all")
    assert ((got - exact) ** 2).sum() < 1e-9 * (exact**2).sum()
    session, other = model.session(kv_type="f32"), model.session(kv_type="f32")
    text = sequence([])
    plain = model.session(kv_type="f32").forward(text, logits="all")
    for start, end in [(0, 6), (6, 7), (7, 45), (45, 81), (81, 90)]:
        both = model.step([(session, given[start:end]), (other, text[start:end])], logits="all")
        assert np.array_equal(both[0], got[start:end])
        assert np.array_equal(both[1], plain[start:end])
    for length in (85, 51, 41, 32, 20, 6, 1, 0):
        fork = session.fork()
        fork.truncate(length)
        assert np.array_equal(fork.forward(given[length:], logits="all"), got[length:])
        session.truncate(length)
        assert np.array_equal(session.fork().forward(given[length:], logits="all"), got[length:])


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("kv_type", ["f32", "f16", "q8_0"])
@pytest.mark.parametrize("places", PLACES)
def test_sessions_with_pictures_are_saved(
    opened: tuple[Model, Any], places: list[int], kv_type: Any, tmp_path: Path
) -> None:
    model, _ = opened
    given = sequence(places)
    expected = model.session(kv_type=kv_type).forward(given, logits="all")
    for length in (90, 64, 41, 8):
        session = model.session(kv_type=kv_type)
        session.forward(given[:length], logits="none")
        session.save(tmp_path / "saved")
        again = model.load_session(tmp_path / "saved")
        assert again.tokens == session.tokens
        assert again.nbytes == session.nbytes
        assert again.saved_pictures() == session.saved_pictures()
        rest = MixedTokens([given[length:], 1, 2])
        assert np.array_equal(again.fork().forward(rest), session.fork().forward(rest))
        if length < 90:
            assert np.array_equal(again.fork().forward(given[length:], logits="all"), expected[length:])
        # Cut to before some of the pictures, and saved once more.
        shorter = max(place for place in (*places, length // 2) if place < length)
        again.truncate(shorter)
        again.save(tmp_path / "shorter")
        twice = model.load_session(tmp_path / "shorter")
        for each in (again, twice):
            assert np.array_equal(each.forward(given[shorter:], logits="all"), expected[shorter:])


def test_files_tell_nothing_about_pictures_that_were_forgotten(opened: tuple[Model, Any]) -> None:
    model, _ = opened
    given = sequence([5, 60])
    session, short = model.session(), model.session()
    session.forward(given, logits="none")
    session.truncate(50)
    short.forward(given[:50], logits="none")
    files = [io.BytesIO(), io.BytesIO()]
    for each, file in zip((session, short), files, strict=True):
        saved_sessions.write(each, file)
    assert files[0].getvalue() == files[1].getvalue()


def saved(model: Model, given: MixedTokens) -> bytes:
    session, file = model.session(), io.BytesIO()
    session.forward(given, logits="none")
    saved_sessions.write(session, file)
    return file.getvalue()


def sealed(data: bytes, header: int) -> bytes:
    """The file with the right checksums."""
    data = data[: header - 4] + struct.pack("<I", zlib.crc32(data[: header - 4])) + data[header:]
    return data[:-4] + struct.pack("<I", zlib.crc32(data[:-4]))


@pytest.mark.instruction_set(one_in=None)
def test_files_that_lie_about_pictures_are_refused(opened: tuple[Model, Any]) -> None:
    model, _ = opened
    sound = saved(model, sequence([5, 60]))
    header = session_format.read_header(io.BytesIO(sound))
    assert (header.version, header.pictures, header.cross_states) == (3, 2, 2 * STATES + 1)
    assert sealed(sound, header.header_bytes) == sound
    assert saved_sessions.read(model, io.BytesIO(sound)).position == 90
    table = header.header_bytes + 4 * header.tokens
    fields = {"start": 0, "count": 8, "flags": 16, "token": 20, "states": 24}
    for name, values in {
        "start": (4, 6, 61, 1 << 40), "count": (0, 2, 1 << 63), "flags": (0, 1, 3, 6, 8, 2**31),
        "token": (1 << 31, 2**32 - 1), "states": (0, 1, 76, 1 << 62),
    }.items():  # fmt: skip
        for value in values:
            form = "<I" if name in ("flags", "token") else "<Q"
            at = table + fields[name]
            data = sound[:at] + struct.pack(form, value) + sound[at + struct.calcsize(form) :]
            with pytest.raises(SessionError):
                saved_sessions.read(model, io.BytesIO(sealed(data, header.header_bytes)))
    for at, value in ((100, 1), (100, 3), (100, 1 << 60), (108, 5), (108, 1 << 62), (116, 0), (116, 1 << 50)):
        data = sound[:at] + struct.pack("<Q", value) + sound[at + 8 :]
        with pytest.raises(SessionError):
            saved_sessions.read(model, io.BytesIO(sealed(data, header.header_bytes)))
    random = np.random.default_rng(0)
    for place in random.integers(0, len(sound), 60).tolist():
        changed = bytearray(sound)
        changed[place] ^= 1 << int(random.integers(8))
        with pytest.raises(SessionError):
            saved_sessions.read(model, io.BytesIO(bytes(changed)))
    for length in random.integers(0, len(sound), 20).tolist():
        with pytest.raises(SessionError):
            saved_sessions.read(model, io.BytesIO(sound[:length]))


@pytest.mark.instruction_set(one_in=None)
def test_a_thousand_pictures_leave_nothing_behind(opened: tuple[Model, Any]) -> None:
    model, _ = opened
    session = model.session()
    session.forward([1, 2, 3], logits="none")
    before = session.nbytes
    picture = pictures(1)[0]
    for _ in range(20):
        session.forward(MixedTokens([picture, 4]), logits="none")
        assert session.tokens[3] >= FIRST_PICTURE_ID
        session.truncate(3)
        assert session.nbytes == before
