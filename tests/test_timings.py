"""The times of every token, in every kind of result, also where one pass gave several tokens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_llama import llama  # noqa: F401 (a fixture)
from fake_model import ids_of, writer
from llamacpu.drafting import FunctionDraft
from llamacpu.generation import generate
from llamacpu.generation.result import GenerationResult
from llamacpu.model import Model
from llamacpu.sampling import Sampling

GREEDY = Sampling(temperature=0)


def check(result: GenerationResult) -> None:
    """What holds for the timings of any result."""
    timings = result.timings
    assert len(timings.token_seconds) == len(result.tokens)
    assert list(timings.token_seconds) == sorted(timings.token_seconds)
    assert timings.prompt_tokens == result.prompt_tokens - result.cached_tokens
    if result.tokens:
        assert timings.first_token_seconds == timings.token_seconds[0] >= timings.prompt_seconds
    # The prompt gives the first choice; every pass gives one more, and one for each token that it confirmed.
    choices = len(result.tokens) + (result.end_token is not None)
    assert choices == 1 + timings.steps + timings.accepted_tokens
    assert timings.accepted_tokens <= timings.drafted_tokens
    assert 0 <= timings.draft_seconds <= timings.generate_seconds
    assert timings.as_dict()["token_seconds"] == list(timings.token_seconds)


@given(st.text("abc", min_size=1, max_size=30), st.text("abc", max_size=30), st.integers(1, 15), st.integers(1, 40))
def test_tokens_of_one_pass_are_counted_and_timed(text: str, guess: str, size: int, max_tokens: int) -> None:
    said = ids_of(guess)
    draft = FunctionDraft(lambda ids: said[len(ids) - 3 :], size, adaptive=False)
    seen: list[float] = []
    result = generate(
        writer(text, 3),
        "ab",
        sampling=GREEDY,
        draft=draft,
        max_tokens=max_tokens,
        on_token=lambda token: seen.append(token.seconds),
    ).read()
    assert result.text == text[:max_tokens]
    assert seen == list(result.timings.token_seconds)
    check(result)


@pytest.mark.parametrize("draft", [None, "auto"])
def test_every_way_to_generate_has_timings(tiny_model: Callable[..., Path], draft: Any) -> None:
    with Model(tiny_model("gqa"), threads=1) as model:
        asked = {"sampling": GREEDY, "max_tokens": 9, "draft": draft, "ignore_end": True}
        check(generate(model, "Hello", **asked).read())
        session = model.session()
        check(generate(session, "Hello", **asked).read())
        check(generate(session, "Hello and more", **asked).read())
        with generate(model, "Hello", **asked) as generation:
            next(generation)
        check(generation.result)

        async def collect() -> GenerationResult:
            generation = generate(model, "Hello", **asked)
            assert [piece async for piece in generation]
            return generation.result

        check(asyncio.run(collect()))


def test_every_response_has_timings(llama: Callable[..., Any]) -> None:  # noqa: F811
    found = llama("hello")
    messages = [{"role": "user", "content": "hi"}]
    for ask in (
        lambda: found("say", max_tokens=9, temperature=0.0),
        lambda: list(found("say", max_tokens=9, temperature=0.0, stream=True))[-1],
        lambda: found.create_chat_completion(messages, temperature=0.0),
        lambda: list(found.create_chat_completion(messages, temperature=0.0, stream=True))[-1],
    ):
        response = ask()
        assert response["choices"][0]["finish_reason"] == "stop"
        assert len(response["timings"]["token_seconds"]) == 5
        assert response["timings"] == found.last_result.timings.as_dict()
        check(found.last_result)
