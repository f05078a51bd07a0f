"""Recurrent layers: states that cannot be rewound, in sessions that can; no bit depends on what was kept."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from family_shapes import BASE
from llamacpu import Cancelled, CancelToken, Model, SessionError
from llamacpu.families.config import Config
from llamacpu.families.memory import kv_numbers, state_bytes, state_size
from reference_model import ReferenceModel, is_exact

pytestmark = pytest.mark.instruction_set

CONFIG = Config(
    **BASE
    | {
        "heads": [0, 0, 6, 0],
        "kv_heads": [0, 0, 2, 0],
        "recurrent_heads": [6, 6, 0, 6],
        "recurrent_key_heads": 2,
        "recurrent_key_size": 12,
        "recurrent_value_size": 20,
        "recurrent_head_order": "interleaved",
        "convolution_size": 4,
        "attention_gate": "query",
        "query_key_norm": ["head"] * 4,
        "rope_style": "neox",
        "rope_size": 4,
        "feed_forward_norm": "post_attention_norm",
    }
)
TOKENS = 1400
"""More than two chunks of a prompt."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_config_model(tmp_path_factory.mktemp("recurrent") / "model.gguf", CONFIG, seed=3)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[Model]:
    with open_config_model(path, CONFIG) as model:
        yield model


@pytest.fixture(scope="module")
def tokens() -> list[int]:
    return np.random.default_rng(5).integers(0, CONFIG.vocab_size, TOKENS).tolist()  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(model: Model, tokens: list[int]) -> Any:
    """The logits of all tokens, from one step."""
    return model.session(context=2 * TOKENS).forward(tokens, logits="all")


def test_against_exact_arithmetic(path: Path, model: Model, tokens: list[int]) -> None:
    got = model.session(kv_type="f32").forward(tokens[:200], logits="all")
    assert is_exact(got, ReferenceModel(path, CONFIG), tokens[:200])


def test_token_by_token(model: Model, tokens: list[int], whole: Any) -> None:
    session = model.session(context=2 * TOKENS)
    rows = [session.forward([token]) for token in tokens[:700]]
    assert np.array_equal(np.stack(rows), whole[:700])


@pytest.mark.instruction_set(one_in=4)
@pytest.mark.parametrize("seed", range(4))
def test_any_way_there_and_back(model: Model, tokens: list[int], whole: Any, seed: int, tmp_path: Path) -> None:
    """Steps of any size, truncation to anywhere, forks, and sessions that were saved and loaded."""
    dice = random.Random(seed)
    sessions = [model.session(context=2 * TOKENS)]
    for _ in range(60):
        place = dice.randrange(len(sessions))
        session = sessions[place]
        position = session.position
        way = dice.random()
        if way < 0.6:
            count = dice.choice([1, 1, 2, 3, 17, 32, 33, 40, 200, 600])
            end = min(position + count, TOKENS)
            if end > position:
                got = session.forward(tokens[position:end], logits="all")
                assert np.array_equal(got, whole[position:end])
        elif way < 0.9:
            back = dice.choice([1, 2, 5, 31, 32, 33, 64, 300, 10_000])
            session.truncate(max(0, position - back))
        elif way < 0.95:
            sessions.append(session.fork())
        else:
            session.save(tmp_path / "session")
            sessions[place] = model.load_session(tmp_path / "session")
    step = [
        (session, tokens[session.position : session.position + 5]) for session in sessions if session.position < 900
    ]
    starts = [session.position for session, _ in step]
    for start, got in zip(starts, model.step(step, logits="all"), strict=True):
        assert np.array_equal(got, whole[start : start + 5])


@pytest.mark.instruction_set(one_in=None)
def test_memory_is_bounded_and_told(model: Model, tokens: list[int]) -> None:
    session = model.session(context=2 * TOKENS)
    for start in range(0, 1200, 100):
        session.forward(tokens[start : start + 100], logits="none")
    for token in tokens[1200:1300]:
        session.forward([token], logits="none")
        pages = -(-session.position // 64) * model.page_bytes("f16")
        assert pages < session.nbytes <= pages + state_bytes(CONFIG, session.position)
    assert session.nbytes <= model._native.kv_bytes("f16", session.position)
    assert kv_numbers(CONFIG, 64) * 2 <= model.page_bytes("f16")


def test_a_few_tokens_back_are_not_run_through_the_model(model: Model, tokens: list[int], whole: Any) -> None:
    """As after a draft that was not accepted, and after a prompt."""
    session = model.session(context=2 * TOKENS)
    session.forward(tokens[:600], logits="none")
    for back in (1, 20, 32):
        assert session.resume_point(600 - back) == 600 - back
    assert session.resume_point(500) == 480
    assert session.resume_point(480) == 480
    assert session.resume_point(100) == 0
    for position in range(600, 700, 10):
        got = session.forward(tokens[position : position + 10], logits="all")
        assert np.array_equal(got, whole[position : position + 10])
        assert session.resume_point(position + 3) == position + 3
        session.truncate(position + 3)
        got = session.forward(tokens[position + 3 : position + 10], logits="all")
        assert np.array_equal(got, whole[position + 3 : position + 10])


@pytest.mark.instruction_set(one_in=None)
def test_a_step_that_is_stopped_leaves_the_session_as_it_was(model: Model, tokens: list[int], whole: Any) -> None:
    session = model.session(context=2 * TOKENS)
    session.forward(tokens[:100], logits="none")
    token = CancelToken()
    token.cancel()
    for length in (100, 90, 30):
        session.truncate(length)
        for _ in range(2):
            with pytest.raises(Cancelled):
                session.forward(tokens[length:], logits="none", cancel=token)
            assert session.position == length
        assert np.array_equal(session.fork().forward(tokens[length:800], logits="all"), whole[length:800])


def test_saved_states(model: Model, tokens: list[int], tmp_path: Path) -> None:
    session = model.session(context=2 * TOKENS)
    file = tmp_path / "session"
    session.save(file)
    assert model.load_session(file).position == 0
    session.forward(tokens[:70], logits="none")
    session.save(file)
    data = file.read_bytes()
    assert state_size(CONFIG) < len(data) < state_size(CONFIG) + 2 * model.page_bytes("f16") + 1000
    # rewound: what the file needs is computed before it is written
    session.truncate(20)
    session.save(file)
    assert np.array_equal(model.load_session(file).forward(tokens[20:30]), session.forward(tokens[20:30]))
    for damaged in (data[:-5], data[:-300] + b"\1" + data[-299:], data + b"\0", data[:92] + b"\xff" * 8 + data[100:]):
        file.write_bytes(damaged)
        with pytest.raises(SessionError):
            model.load_session(file)
