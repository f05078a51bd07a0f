"""What the fakes of the tests and the real things have in common: one contract, run with each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fake_llama
import fake_model
from fake_llama import llama
from llamacpu import Cancelled, CancelToken, ContextOverflow, Llama, Model

__all__ = ["llama"]
TinyModel = Callable[..., Path]


@pytest.fixture(
    scope="module", params=["fake model", "fake model of a Llama", "real, SentencePiece", "real, byte-level"]
)
def model(request: pytest.FixtureRequest, tiny_model: TinyModel) -> Iterator[Any]:
    if request.param == "fake model":
        yield fake_model.FakeModel(lambda tokens: sum(tokens) % fake_model.VOCABULARY)
    elif request.param == "fake model of a Llama":
        yield fake_llama.Model(lambda tokens: sum(tokens) % fake_model.VOCABULARY)
    else:
        with Model(tiny_model("gqa" if "Sentence" in request.param else "bpe"), threads=1) as real:
            yield real


IDS = [5, 3, 40, 7]


def test_a_session_counts_what_it_was_given(model: Any) -> None:
    session = model.session()
    assert (session.position, session.tokens, session.context) == (0, [], model.context_length)
    assert session.model is model
    row = session.forward(IDS)
    assert (row.shape, row.dtype) == ((model.vocab_size,), np.float32)
    assert (session.position, session.tokens) == (4, IDS)
    assert session.forward([9], logits="none") is None
    session.tokens.append(1)
    assert session.tokens == [*IDS, 9]


def test_rows_are_those_of_the_tokens_before(model: Any) -> None:
    rows = model.session().forward(IDS, logits="all")
    assert rows.shape == (4, model.vocab_size)
    session = model.session()
    for token, row in zip(IDS, rows, strict=True):
        assert np.array_equal(session.forward([token]), row)
    session.truncate(2)
    assert (session.position, session.tokens) == (2, IDS[:2])
    assert np.array_equal(session.forward(IDS[2:], logits="all"), rows[2:])
    session.truncate(4)
    assert session.position == 4


def test_a_fork_goes_its_own_way(model: Any) -> None:
    origin = model.session()
    origin.forward(IDS)
    if not hasattr(origin, "fork"):
        pytest.skip("this fake cannot fork")
    fork = origin.fork()
    assert (fork.tokens, fork.context) == (IDS, origin.context)
    alone = model.session().forward([*IDS, 8])
    assert np.array_equal(fork.forward([8]), alone)
    assert origin.tokens == IDS


def test_what_a_session_refuses(model: Any) -> None:
    session = model.session(context=6)
    assert session.context == 6
    session.forward(IDS)
    cancelled = CancelToken()
    cancelled.cancel()
    refusals: list[tuple[type[Exception], Callable[[], object]]] = [
        (ContextOverflow, lambda: session.forward([1, 2, 3])),
        (Cancelled, lambda: session.forward([1], cancel=cancelled)),
        (ValueError, lambda: session.forward([])),
        (ValueError, lambda: session.forward([model.vocab_size])),
        (ValueError, lambda: session.truncate(5)),
    ]
    for error, call in refusals:
        with pytest.raises(error):
            call()
        assert session.tokens == IDS
    session.forward([1, 2])
    assert session.position == 6


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text("abc é你\U0001f999", max_size=12))
def test_text_becomes_ids_and_comes_back(model: Any, text: str) -> None:
    tokenizer = model.tokenizer
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos
    assert ids[1:] == tokenizer.encode(text, add_special=False)
    assert all(0 <= token < model.vocab_size for token in ids)
    assert tokenizer.decode(ids, skip_special=True) == text
    for skip in (True, False):
        stream = tokenizer.stream(skip_special=skip)
        said = "".join(map(stream.push, ids[1:])) + stream.flush()
        # A stream does not know that a text begins, and keeps the space that SentencePiece puts there.
        assert said in (text, " " + text)
        assert stream.flush() == ""


def test_special_tokens_are_silent_when_asked(model: Any) -> None:
    tokenizer = model.tokenizer
    assert tokenizer.eog
    for token in [tokenizer.bos, *tokenizer.eog]:
        assert tokenizer.stream(skip_special=True).push(token) == ""
        assert tokenizer.stream().push(token) != ""
        assert tokenizer.decode([token], skip_special=True) == ""


def test_a_broken_character_is_held_back_and_replaced(model: Any) -> None:
    tokenizer = model.tokenizer
    ids = tokenizer.encode("\U0001f999", add_special=False)[-4:]
    stream = tokenizer.stream()
    assert [stream.push(token) for token in ids[:-1]] == [""] * (len(ids) - 1)
    assert stream.flush() == "\ufffd"


# --- Llama ---


def shape(value: Any) -> Any:
    """The keys and types of an answer."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value[:1]]
    return type(value).__name__


CALLS: dict[str, Callable[[Any], Any]] = {
    "completion": lambda found: found("abc", max_tokens=4, temperature=0.0),
    "stream": lambda found: list(found("abc", max_tokens=4, temperature=0.0, stream=True))[-1],
    "log-probabilities": lambda found: found("abc", max_tokens=1, temperature=0.0, logprobs=1)["usage"],
    "chat": lambda found: found.create_chat_completion([{"role": "user", "content": "a"}], max_tokens=4),
    "chat stream": lambda found: list(
        found.create_chat_completion([{"role": "user", "content": "a"}], max_tokens=4, stream=True)
    )[-1],
    "tokens": lambda found: [found.tokenize(b"abc"), found.n_vocab() > 0, found.token_bos(), found.token_eos()],
    "text": lambda found: found.detokenize(found.tokenize(b"abc")),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_fake_llama_answers_in_the_shape_of_a_real_one(
    name: str, llama: Callable[..., Llama], tiny_model: TinyModel
) -> None:
    fake = CALLS[name](llama("xyz and more"))
    with Llama(tiny_model("gqa"), n_ctx=0, seed=1) as real:
        assert shape(fake) == shape(CALLS[name](real))
