"""Layers that see a window or a chunk: their memory is bounded, and no bit depends on what has been dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from config_models import open_config_model, write_config_model
from family_shapes import SHAPES
from llamacpu import Cancelled, CancelToken, Model
from tiny_models import Shape

TinyModel = Callable[..., Path]
WINDOW = Shape(context=4096, extra={"attention.sliding_window": 40})
TOKENS = 900


@pytest.fixture
def model(tiny_model: TinyModel) -> Model:
    return Model(tiny_model(WINDOW), threads=2)


def some_tokens(model: Model, count: int = TOKENS) -> list[int]:
    return np.random.default_rng(5).integers(0, model.vocab_size, count).tolist()  # type: ignore[no-any-return]


def test_pages_behind_the_window_are_dropped(model: Model) -> None:
    page = model.page_bytes("f16")
    session = model.session()
    tokens = some_tokens(model)
    session.forward(tokens, logits="none")
    # 40 of the window and 128 to rewind by, which begin somewhere in a page and end somewhere in one
    assert session.nbytes <= 4 * page
    for token in some_tokens(model, 300):
        session.forward([token], logits="none")
        assert session.nbytes <= 4 * page
    assert session.nbytes == model._native.kv_bytes("f16", session.position)


def test_short_and_long_ways_back_give_the_same_bits(model: Model) -> None:
    tokens = some_tokens(model)
    whole = model.session().forward(tokens, logits="all")
    session = model.session()
    session.forward(tokens, logits="none")
    for length in (TOKENS - 1, TOKENS - 120, 600, 599, 300, 41, 40, 1, 0):
        session.truncate(length)
        assert session.position == length
        assert session.tokens == tokens[:length]
        end = min(TOKENS, length + 50)
        assert np.array_equal(session.forward(tokens[length:end], logits="all"), whole[length:end])
        if length == 600:
            session.forward(tokens[end:], logits="none")


def test_token_by_token_behind_the_window(model: Model) -> None:
    tokens = some_tokens(model, 300)
    whole = model.session().forward(tokens, logits="all")
    session = model.session()
    assert np.array_equal(np.stack([session.forward([token]) for token in tokens]), whole)


def test_forks_and_batches_of_rewound_sessions(model: Model) -> None:
    tokens = some_tokens(model)
    whole = model.session().forward(tokens, logits="all")
    first = model.session()
    first.forward(tokens, logits="none")
    second = first.fork()
    second.truncate(200)
    third = second.fork()
    together = model.step([(second, tokens[200:230]), (first, tokens[:3]), (third, tokens[200:201])], logits="all")
    assert np.array_equal(together[0], whole[200:230])
    assert np.array_equal(together[2], whole[200:201])
    assert first.position == TOKENS + 3


def test_saved_sessions(model: Model, tmp_path: Path) -> None:
    tokens = some_tokens(model)
    session = model.session()
    session.forward(tokens, logits="none")
    session.save(tmp_path / "session")
    restored = model.load_session(tmp_path / "session")
    assert restored.nbytes <= session.nbytes
    assert np.array_equal(restored.forward(tokens[:9]), session.forward(tokens[:9]))
    session.truncate(300)
    session.save(tmp_path / "rewound")
    restored = model.load_session(tmp_path / "rewound")
    assert np.array_equal(restored.forward(tokens[300:310]), session.forward(tokens[300:310]))


def test_a_step_that_is_stopped_leaves_the_session_as_it_was(model: Model) -> None:
    tokens = some_tokens(model)
    whole = model.session().forward(tokens, logits="all")
    session = model.session()
    session.forward(tokens[:100], logits="none")
    token = CancelToken()
    token.cancel()
    for _ in range(2):
        with pytest.raises(Cancelled):
            session.forward(tokens[100:], logits="none", cancel=token)
        assert session.position == 100
    assert np.array_equal(session.forward(tokens[100:], logits="all"), whole[100:])
    session.truncate(100)
    with pytest.raises(Cancelled):
        session.forward(tokens[100:], logits="none", cancel=token)
    assert session.position == 100
    assert np.array_equal(session.forward(tokens[100:], logits="all"), whole[100:])


def test_chunks_and_original_contexts(golden: Path) -> None:
    """Llama 4's chunks and Gemma's windows beside layers that see everything; token by token and after going back."""
    for name in ("llama4", "llama4-step2", "gemma3", "cohere2", "gpt-oss", "gemma2"):
        path = golden / "families" / f"{name}.gguf"
        if not path.is_file():
            pytest.skip(f"no {path}")
        with Model(path, threads=2) as model:
            tokens = some_tokens(model, 500)
            whole = model.session(context=512).forward(tokens, logits="all")
            session = model.session(context=512)
            rows = [session.forward([token]) for token in tokens]
            assert np.array_equal(np.stack(rows), whole)
            assert session.nbytes < -(-len(tokens) // 64) * model.page_bytes("f16")
            for length in (490, 330, 70):
                session.truncate(length)
                assert np.array_equal(session.forward(tokens[length:], logits="all"), whole[length:])


def test_a_session_is_restored_into_a_context_with_another_rotation(tmp_path: Path) -> None:
    """Sessions beyond the original context of LongRoPE turn by other angles: their keys are computed again."""
    config = SHAPES["fused and long"]
    path = write_config_model(tmp_path / "model.gguf", config)
    tokens = [3, 1, 4, 1, 5, 9, 2, 6]
    with open_config_model(path, config) as model:
        short, long = model.session(context=64), model.session(context=65)
        short.forward(tokens, logits="none")
        long.forward(tokens, logits="none")
        expected = [session.forward([5]) for session in (short.fork(), long.fork())]
        assert not np.array_equal(*expected)
        short.save(tmp_path / "session")
        for context, logits in zip((None, 60, 65), (expected[0], expected[0], expected[1]), strict=True):
            restored = model.load_session(tmp_path / "session", context=context)
            assert restored.tokens == tokens
            assert np.array_equal(restored.forward([5]), logits)
