"""Rows of pictures between tokens: the same bits as tokens, in every division into steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import reference_attention
from config_models import open_config_model, write_config_model
from family_shapes import BASE, SHAPES
from llamacpu import Cancelled, CancelToken, Model
from llamacpu.engine.pictures import FIRST_PICTURE_ID, CrossStates, Embeddings, MixedTokens
from llamacpu.families.config import Config
from reference_model import ReferenceModel

pytestmark = pytest.mark.instruction_set
WIDTH, VOCABULARY = 48, 60
Opened = tuple[Model, Path, Config]


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Opened]]:
    """The model of a named shape, opened once."""
    folder, models = tmp_path_factory.mktemp("models"), {}

    def model(name: str) -> Opened:
        if name not in models:
            config = SHAPES[name] if name in SHAPES else Config(**BASE)
            path = write_config_model(folder / f"{len(models)}.gguf", config)
            models[name] = (open_config_model(path, config), path, config)
        return models[name]

    yield model
    for each, *_ in models.values():
        each.close()


def table(path: Path, config: Config) -> Any:
    """The embedding, as it enters the first layer."""
    weights = ReferenceModel(path, config).matrix("token_embd.weight").astype(np.float32)
    return weights * np.float32(config.embedding_scale)


def tokens(count: int, seed: int = 0) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).tolist()


def mixed(ids: list[int], rows: Any, *places: tuple[int, int], together: bool = False) -> MixedTokens:
    """The same sequence with the embeddings of some places given as pictures."""
    parts: list[Any] = []
    done = 0
    for number, (start, end) in enumerate(places):
        digest = f"{ids[start:end]} {number}".encode()
        parts += [ids[done:start], Embeddings(rows[ids[start:end]], digest, together)]
        done = end
    return MixedTokens([*parts, ids[done:]])


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("name", ["plain", *SHAPES])
def test_rows_of_the_table_give_the_bits_of_tokens(opened: Callable[[str], Opened], name: str) -> None:
    model, path, config = opened(name)
    ids = tokens(90)
    given = mixed(ids, table(path, config), (3, 20), (20, 33), (50, 51), (80, 90))
    expected = model.session(kv_type="f32").forward(ids, logits="all")
    assert np.array_equal(model.session(kv_type="f32").forward(given, logits="all"), expected)
    session, other = model.session(kv_type="f32"), model.session(kv_type="f32")
    for start, end in [(0, 7), (7, 25), (25, 26), (26, 81), (81, 90)]:
        rows = model.step([(session, given[start:end]), (other, ids[start:end])], logits="all")
        assert np.array_equal(rows[0], expected[start:end])
        assert np.array_equal(rows[1], expected[start:end])
    states = model.session(kv_type="f32").hidden(given, layers=[0, -1])
    assert np.array_equal(states, model.session(kv_type="f32").hidden(ids, layers=[0, -1]))
    with open_config_model(path, config, threads=3) as again:
        assert np.array_equal(again.session(kv_type="f32").forward(given, logits="all"), expected)


@pytest.mark.instruction_set(one_in=3)
@pytest.mark.parametrize("name", ["plain", "windows and two bases", "chunks and temperature"])
def test_sessions_with_pictures_fork_rewind_and_are_saved(
    opened: Callable[[str], Opened], name: str, tmp_path: Path
) -> None:
    model, path, config = opened(name)
    ids = tokens(250)
    given = mixed(ids, table(path, config), (10, 60), (100, 140))
    expected = model.session().forward(ids, logits="all")
    session = model.session()
    session.forward(given[:200], logits="none")
    assert session.tokens == given.ids[:200]
    assert [at for at, token in enumerate(session.tokens) if token >= FIRST_PICTURE_ID] == [
        *range(10, 60),
        *range(100, 140),
    ]
    fork = session.fork()
    # Windows have forgotten what is needed this far back, so that the pictures are read again.
    for length in (190, 120, 70, 30):
        session.truncate(length)
        assert np.array_equal(session.forward(given[length:], logits="all"), expected[length:])
    assert np.array_equal(fork.forward(given[200:], logits="all"), expected[200:])
    fork.truncate(220)
    fork.save(tmp_path / "saved")
    restored = model.load_session(tmp_path / "saved")
    assert restored.tokens == given.ids[:220]
    assert np.array_equal(restored.forward(given[220:], logits="all"), expected[220:])
    restored.truncate(30)
    if name == "plain":
        assert np.array_equal(restored.forward(ids[30:], logits="all"), expected[30:])
    else:
        with pytest.raises(ValueError, match="restored from a file, and its pictures, which the file does not hold"):
            restored.forward(ids[30:])


@pytest.mark.instruction_set(one_in=None)
def test_a_list_of_parts_is_read_as_a_sequence(opened: Callable[[str], Opened]) -> None:
    model, path, config = opened("plain")
    ids, rows = tokens(20), table(path, config)
    parts: Any = [ids[:4], Embeddings(rows[ids[4:9]], b"a"), ids[9:]]
    assert np.array_equal(model.session().forward(parts), model.session().forward(ids))


@pytest.mark.instruction_set(one_in=None)
def test_the_ids_of_pictures_are_those_of_their_digests() -> None:
    rows = np.ones((21, 4), np.float32)
    first, second = Embeddings(rows, b"first"), Embeddings(rows, b"second")
    assert first.ids == Embeddings(rows * 2, b"first").ids
    assert not set(first.ids) & set(second.ids)
    assert len(set(first.ids)) == 21
    assert all(FIRST_PICTURE_ID <= token < 2**32 for token in first.ids)
    whole = MixedTokens([[1, 2], first, 3, second, [4]])
    assert len(whole) == 46
    for start in range(0, 46, 3):
        for end in range(start, 47, 5):
            cut = whole[start:end]
            assert isinstance(cut, MixedTokens)
            assert cut.ids == whole.ids[start:end]
            assert sum(len(piece) for _, piece in cut.pieces) == sum(token >= FIRST_PICTURE_ID for token in cut)
            for place, piece in cut.pieces:
                assert piece.ids == cut.ids[place : place + len(piece)]
    assert whole[:9] + whole[9:] == whole
    assert whole.ids[:2] + whole[2:] == whole.ids
    assert whole[1:30].pieces[0][1].ids == first.ids
    assert whole == whole.ids
    assert MixedTokens([whole, [7]])[-1] == 7
    with pytest.raises(ValueError, match="step 2"):
        whole[::2]


@pytest.mark.instruction_set(one_in=None)
def test_what_cannot_be_a_picture_is_refused(opened: Callable[[str], Opened]) -> None:
    model, path, config = opened("plain")
    rows = table(path, config)
    session = model.session()
    session.forward([1, 2, 3], logits="none")
    picture = Embeddings(rows[:5], b"picture")
    narrow = Embeddings(rows[:5, :40].copy(), b"picture")
    broken = rows[:5].copy()
    broken[2, 3] = np.inf
    for items, message in [
        ([5, *picture.ids], "was not given"),
        ([[5], narrow], "rows of 48"),
        ([Embeddings(broken, b"picture")], "not finite"),
        ([CrossStates(rows[:5], b"picture", 3)], "without cross-attention"),
        ([[1], Embeddings(rows[:5], b"picture", True).part(0, 4)], "all of its rows in one step"),
        ([[VOCABULARY], picture], "outside the vocabulary"),
    ]:
        with pytest.raises(ValueError, match=message):
            session.forward(items)
    for shape in [(0, 48), (3,), (2, 3, 4)]:
        with pytest.raises(ValueError, match="rows x width"):
            Embeddings(np.zeros(shape, np.float32), b"picture")
    native, step = session._native, model._native.step
    for ids, pictures, message in [
        ([1, 2], [(0, rows[:2], False, None, None)], "expected ids of"),
        (picture.ids, [(0, rows[:6], False, None, None)], "one after the other"),
        (picture.ids * 2, [(0, rows[:5], False, None, None), (4, rows[:2], False, None, None)], "one after the other"),
    ]:
        with pytest.raises(ValueError, match=message):
            step([(native, ids, pictures)])
    cancel = CancelToken()
    cancel.cancel()
    with pytest.raises(Cancelled):
        session.forward([[1], picture], cancel=cancel)
    assert session.tokens == [1, 2, 3]


def together_reference(
    monkeypatch: pytest.MonkeyPatch, path: Path, config: Config, ids: list[int], start: int, end: int
) -> Any:
    """The logits in NumPy where the rows of one picture see each other."""

    def seen(count: int, window: int, chunk: int, causal: bool = True) -> Any:
        found = plain(count, window, chunk, causal)
        found[start:end, start:end] = True
        return found

    plain = reference_attention.visible
    with monkeypatch.context() as patch:
        patch.setattr(reference_attention, "visible", seen)
        return ReferenceModel(path, config).logits(ids)


@pytest.mark.parametrize("name", ["plain", "windows and two bases"])
def test_rows_of_a_picture_see_each_other(
    opened: Callable[[str], Opened], name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model, path, config = opened(name)
    ids, start, end = tokens(70), 20, 50
    exact = together_reference(monkeypatch, path, config, ids, start, end)
    given = mixed(ids, table(path, config), (start, end), together=True)
    got = model.session(kv_type="f32").forward(given, logits="all")
    assert ((got - exact) ** 2).sum() < 1e-9 * (exact**2).sum()
    causal = model.session(kv_type="f32").forward(ids, logits="all")
    assert np.array_equal(got[:start], causal[:start])
    assert not np.array_equal(got[start], causal[start])
    session, other = model.session(kv_type="f32"), model.session(kv_type="f32")
    for first, last in [(0, 11), (11, 52), (52, 70)]:
        rows = model.step([(other, ids[first:last]), (session, given[first:last])], logits="all")
        assert np.array_equal(rows[1], got[first:last])
    last = model.session(kv_type="f32")
    assert np.array_equal(last.forward(given[:end]), got[end - 1])
    for length in (end - 1, start + 1):
        with pytest.raises(ValueError, match="inside a picture"):
            last.truncate(length)
    last.save(tmp_path / "saved")
    again = model.load_session(tmp_path / "saved")
    with pytest.raises(ValueError, match="inside a picture"):
        again.truncate(start + 1)
    assert np.array_equal(again.forward(given[end:], logits="all"), got[end:])
    for length in (end, start):
        last.truncate(length)
        assert np.array_equal(last.forward(given[length:], logits="all"), got[length:])


@pytest.mark.instruction_set(one_in=None)
def test_a_picture_longer_than_the_rest_of_a_chunk_is_not_cut(tmp_path: Path) -> None:
    config = Config(**BASE | {"context_length": 2048, "rope_original_context": 2048, "window": [64, 0] * 2})
    path = write_config_model(tmp_path / "model.gguf", config)
    ids = tokens(1500)
    with open_config_model(path, config) as model:
        rows = table(path, config)
        given = mixed(ids, rows, (300, 560), (580, 1200), together=True)
        whole = model.session(kv_type="f32").forward(given, logits="all")
        session = model.session(kv_type="f32")
        for start, end in [(0, 299), (299, 570), (570, 1400), (1400, 1500)]:
            assert np.array_equal(session.forward(given[start:end], logits="all"), whole[start:end])
        session.truncate(575)
        pair = model.step([(model.session(kv_type="f32"), ids[:400]), (session, given[575:])], logits="all")
        assert np.array_equal(pair[1], whole[575:])


class TurnedReference(ReferenceModel):
    """Pairs turned by time, row and column."""

    turned: Any = None

    def rotation(self, layer: int, positions: Any, context: int) -> Any:
        found = [super(TurnedReference, self).rotation(layer, part, context) for part in self.turned.T]
        sections = self.config["rope_sections"]
        which = np.repeat(np.arange(3), sections)
        if self.config["rope_sections_alternate"]:
            which = np.arange(sum(sections)) % 3
            for kind in (1, 2):
                which[3 * sections[kind] + kind :: 3] = 0
        return tuple(np.select([which == at for at in range(3)], [table[kind] for table in found]) for kind in range(2))


@pytest.mark.parametrize(
    "more",
    [
        {"rope_sections": [2, 3, 3]},
        {"rope_sections": [4, 2, 2], "rope_sections_alternate": True, "picture_layers": 2},
        {"rope_sections": [3, 3, 2], "rope_sections_alternate": True},
    ],
)
def test_rows_of_pictures_are_turned_by_time_row_and_column(tmp_path: Path, more: dict[str, Any]) -> None:
    config = Config(**BASE | {"rope_style": "neox"} | more)
    path = write_config_model(tmp_path / "model.gguf", config)
    ids, rows = tokens(60), table(path, config)
    layers = config["picture_layers"]
    deep = np.random.default_rng(0).standard_normal((layers, *rows.shape)).astype(np.float32)
    rows = np.concatenate([rows, *deep], 1)
    places = [(5, 20, (3, 5)), (20, 32, (6, 2)), (40, 44, (2, 2))]
    parts: list[Any] = []
    turned: list[list[int]] = []
    done = position = 0
    for start, end, (height, width) in places:
        parts += [ids[done:start], Embeddings(rows[ids[start:end]], b"%d" % start, grid=(height, width))]
        turned += [[position + at] * 3 for at in range(start - done)]
        position += start - done
        turned += [[position, position + at // width, position + at % width] for at in range(end - start)]
        position, done = position + max(height, width), end
    turned += [[position + at] * 3 for at in range(len(ids) - done)]
    given = MixedTokens([*parts, ids[done:]])
    reference = TurnedReference(path, config)
    reference.turned = np.array(turned)
    shown = np.zeros((60, 1))
    for start, end, _ in places:
        shown[start:end] = 1
    reference.behind = {layer: shown * deep[layer][ids] for layer in range(layers)}
    exact = reference.logits(ids)
    with open_config_model(path, config) as model:
        got = model.session(kv_type="f32").forward(given, logits="all")
        assert ((got - exact) ** 2).sum() < 1e-9 * (exact**2).sum()
        text = model.session(kv_type="f32").forward(ids, logits="all")
        same = 5 if layers else 6
        assert np.array_equal(got[:same], text[:same])
        session = model.session(kv_type="f32")
        for start, end in [(0, 9), (9, 19), (19, 33), (33, 60)]:
            assert np.array_equal(session.forward(given[start:end], logits="all"), got[start:end])
        for length in (50, 41, 20, 11):
            session.truncate(length)
            assert np.array_equal(session.fork().forward(given[length:], logits="all"), got[length:])
        session = model.session(kv_type="f32")
        session.forward(given[:36], logits="none")
        session.save(tmp_path / "saved")
        again = model.load_session(tmp_path / "saved")
        assert again.saved_pictures() == session.saved_pictures()
        assert np.array_equal(again.forward(given[36:], logits="all"), got[36:])
        again.truncate(25)
        assert np.array_equal(again.fork().forward(given[25:], logits="all"), got[25:])
        for grid in (None, (2, 2), (0, 4), (1 << 40, 1 << 40)):
            with pytest.raises(ValueError, match="height and width"):
                model.session().forward([Embeddings(rows[:5], b"picture", grid=grid)])
        with pytest.raises(ValueError, match=f"rows of {WIDTH * (1 + layers)}, the width"):
            model.session().forward([Embeddings(rows[:6, :-8].copy(), b"picture", grid=(2, 3))])
