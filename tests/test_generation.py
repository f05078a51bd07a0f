"""The loop over a model whose answers are known: pieces, ends, limits, cancellation, and what the result tells."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_model import CONTROL, END, START, VOCABULARY, FakeModel, ids_of, writer
from llamacpu.errors import ContextOverflow
from llamacpu.generation import Generation, generate
from llamacpu.generation.context_window import fit_prompt, room_by_shifting
from llamacpu.sampling import Sampler, Sampling
from llamacpu.text.stop_strings import StopStrings

GREEDY = Sampling(temperature=0)
PROMPT = "ab"
PROMPT_TOKENS = 3


def answer(text: str | bytes, **settings: object) -> Generation:
    return generate(writer(text, PROMPT_TOKENS), PROMPT, sampling=GREEDY, **settings)  # type: ignore[arg-type]


def repeating(text: str = "x") -> FakeModel:
    """Writes the text for ever."""
    letters = ids_of(text)
    return FakeModel(lambda tokens: letters[len(tokens) % len(letters)])


def test_text_comes_in_pieces_until_the_model_ends() -> None:
    generation = answer("héllo")
    assert list(generation) == ["h", "é", "l", "l", "o"]
    result = generation.result
    assert result.text == "héllo"
    assert result.tokens == tuple(ids_of("héllo"))
    assert (result.ended_by, result.finish_reason, result.end_token) == ("end_of_text", "stop", END)
    assert result.prompt_tokens == PROMPT_TOKENS
    assert not result.truncated


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.integers(0, 30))
def test_pieces_join_to_the_text_cut_at_a_token(text: str, max_tokens: int) -> None:
    result = answer(text, max_tokens=max_tokens).read()
    data = text.encode()
    assert result.text == data[:max_tokens].decode(errors="replace")
    assert len(result.tokens) == min(max_tokens, len(data))
    assert result.ended_by == ("end_of_text" if max_tokens > len(data) else "max_tokens")


def test_a_session_does_not_compute_a_token_that_nobody_asked_for() -> None:
    session = repeating().session()
    result = generate(session, PROMPT, sampling=GREEDY, max_tokens=4).read()
    assert session.calls == [PROMPT_TOKENS, 1, 1, 1]
    assert result.timings.steps == 3
    assert len(result.timings.token_seconds) == 4
    assert list(result.timings.token_seconds) == sorted(result.timings.token_seconds)


def cut(text: str, stops: list[str]) -> str:
    """The text up to the stop string that is complete first, letter by letter."""
    for end in range(len(text) + 1):
        found = [text[:end].find(stop) for stop in stops if stop in text[:end]]
        if found:
            return text[: min(found)]
    return text


@given(st.text("abc", max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=4))
def test_stop_strings_never_come_out(text: str, stops: list[str]) -> None:
    generation = answer(text, stop=stops)
    pieces = list(generation)
    assert "".join(pieces) == cut(text, stops) == generation.result.text
    assert all(pieces)
    assert (generation.result.stop_string in stops) == any(stop in text for stop in stops)
    assert generation.result.ended_by == ("stop_string" if any(stop in text for stop in stops) else "end_of_text")


@given(st.text("ab", max_size=30), st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3))
def test_only_what_may_become_a_stop_string_is_held_back(text: str, stops: list[str]) -> None:
    scanner = StopStrings(stops)
    out = ""
    for end in range(1, len(text) + 1):
        out += scanner.push(text[end - 1])
        if scanner.found is not None:
            break
        held = text[len(out) : end]
        assert not held or any(stop.startswith(held) for stop in stops)
        longer = [
            held_before for held_before in range(len(out)) if any(s.startswith(text[held_before:end]) for s in stops)
        ]
        assert not longer


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="a stop string is ''"):
        answer("x", stop=[""])


def test_a_stop_string_that_stays_unfinished_comes_out_at_the_end() -> None:
    assert list(answer("abc<en", stop="<end>")) == ["a", "b", "c", "<en"]


def test_control_tokens_are_hidden_unless_asked_for() -> None:
    def model() -> FakeModel:
        return FakeModel(lambda tokens: [CONTROL, *ids_of("x"), END][len(tokens) - PROMPT_TOKENS])

    assert generate(model(), PROMPT, sampling=GREEDY).read().text == "x"
    assert generate(model(), PROMPT, sampling=GREEDY, show_special=True).read().text == "<c>x"


def test_ignoring_the_end_goes_on() -> None:
    result = answer("ab", ignore_end=True, max_tokens=5).read()
    assert len(result.tokens) == 5
    assert END not in result.tokens
    assert result.ended_by == "max_tokens"


def test_a_full_context_ends_the_generation() -> None:
    result = generate(repeating_in(8), PROMPT, sampling=GREEDY).read()
    assert (result.ended_by, result.finish_reason) == ("context", "length")
    # The last token is chosen from the logits of the last place; it needs no place itself.
    assert len(result.tokens) == 8 - PROMPT_TOKENS + 1


def repeating_in(context: int) -> FakeModel:
    model = repeating()
    model.context_length = context
    return model


def test_a_prompt_that_does_not_fit_is_an_error_before_any_work() -> None:
    session = repeating_in(8).session()
    with pytest.raises(ContextOverflow, match="the prompt has 11 tokens and the context holds 8"):
        generate(session, "0123456789")
    assert session.calls == []


def test_a_prompt_that_does_not_fit_may_lose_its_middle() -> None:
    session = repeating_in(8).session()
    result = generate(session, "0123456789", sampling=GREEDY, overflow="truncate", max_tokens=2).read()
    assert session.tokens == [START, *ids_of("56789x")]
    assert (result.dropped_tokens, result.truncated) == (5, True)
    assert result.prompt_tokens == 6


@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 40), st.none() | st.integers(0, 50))
def test_a_fitted_prompt_keeps_its_ends_and_leaves_room(
    length: int, context: int, keep: int, max_tokens: int | None
) -> None:
    ids = list(range(length))
    fitted = list(fit_prompt(ids, context, "truncate", keep, max_tokens))
    assert len(fitted) <= context
    if length <= context:
        assert fitted == ids
        return
    assert fitted[-1] == ids[-1]
    assert context - len(fitted) >= min(context // 2, context // 4 if max_tokens is None else max_tokens)
    gaps = np.flatnonzero(np.diff(fitted) != 1)
    assert len(gaps) <= 1
    assert keep == 0 or len(fitted) == 1 or fitted[0] == 0


def test_a_full_context_may_be_shifted() -> None:
    letters = "abcdefghijklmnop"
    model = FakeModel(lambda tokens: ids_of(letters[(letters.index(chr(tokens[-1] - 3)) + 1) % 16])[0], context=8)
    session = model.session()
    result = generate(session, "a", sampling=GREEDY, overflow="shift", max_tokens=30).read()
    assert result.text == ("bcdefghijklmnopa" * 2)[:30]
    assert result.shifts > 1
    assert result.ended_by == "max_tokens"
    assert session.tokens[0] == START
    # Every token was in the session once, and is still there or was dropped; the newest has not been computed.
    assert result.dropped_tokens == 2 + 30 - 1 - len(session.tokens)


@given(st.integers(1, 40), st.integers(0, 50))
def test_shifting_makes_room_and_keeps_the_newest(length: int, keep: int) -> None:
    remaining = list(room_by_shifting(list(range(length)), keep))
    assert len(remaining) < length
    assert remaining[: min(keep, max(length - 2, 0))] == list(range(min(keep, max(length - 2, 0))))
    if length > 1:
        assert remaining[-1] == length - 1


def test_what_the_session_shares_with_the_prompt_is_not_computed_again() -> None:
    session = repeating("y").session()
    generate(session, "hello", sampling=GREEDY, max_tokens=3).read()
    session.calls.clear()
    result = generate(session, [START, *ids_of("helloyy, and")], sampling=GREEDY, max_tokens=1).read()
    assert result.cached_tokens == 8
    assert session.calls == [5]
    session.calls.clear()
    assert generate(session, "hello", sampling=GREEDY, max_tokens=1).read().cached_tokens == 5
    assert session.calls == [1]
    assert session.tokens == [START, *ids_of("hello")]


def test_a_long_prompt_is_read_in_chunks_that_are_reported() -> None:
    session = repeating_in(3000).session()
    seen: list[tuple[int, int]] = []
    prompt = [START, *ids_of("z" * 2000)]
    generate(session, prompt, sampling=GREEDY, max_tokens=1, on_prompt=lambda *step: seen.append(step)).read()
    assert seen[0] == (0, 2001)
    assert seen[-1] == (2001, 2001)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert sum(session.calls) == 2001
    assert max(session.calls) <= 768


def test_an_empty_prompt_is_the_start_token() -> None:
    session = repeating().session()
    generate(session, [], sampling=GREEDY, max_tokens=1).read()
    assert session.tokens == [START]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": [5000]}, "the prompt holds token 5000; expected ids from 0 to 258"),
        ({"prompt": [-1]}, "the prompt holds token -1"),
        ({"max_tokens": -1}, "max_tokens is -1"),
        ({"overflow": "wrap"}, "overflow is 'wrap'"),
        ({"log_probabilities": -2}, "log_probabilities is -2"),
        ({"sampling": Sampling(logit_bias={5000: 1})}, "logit_bias names token 5000"),
    ],
)
def test_wrong_arguments_are_named_before_any_work(arguments: dict[str, object], message: str) -> None:
    session = repeating().session()
    with pytest.raises(ValueError, match=message):
        generate(session, **{"prompt": "a", **arguments})  # type: ignore[arg-type]
    assert session.calls == []


def test_processors_change_the_logits_and_criteria_end() -> None:
    lengths: list[int] = []

    def shout(tokens: np.ndarray, logits: np.ndarray) -> np.ndarray:
        lengths.append(len(tokens))
        logits[ids_of("!")[0]] = 99.0
        return logits

    def enough(tokens: np.ndarray, logits: np.ndarray) -> bool:
        assert logits.shape == (VOCABULARY,)
        return len(tokens) == PROMPT_TOKENS + 3

    result = answer("quiet", logits_processors=[shout], stopping_criteria=[enough]).read()
    assert (result.text, result.ended_by, result.finish_reason) == ("!!!", "criterion", "stop")
    assert lengths == [3, 4, 5]


def test_log_probabilities_are_of_the_model_not_of_the_settings() -> None:
    sampling = Sampling(temperature=0, logit_bias={ids_of("?")[0]: 3.0})
    result = generate(writer("hi", PROMPT_TOKENS), PROMPT, sampling=sampling, log_probabilities=2, max_tokens=2).read()
    assert result.log_probabilities is not None
    expected = 10 - np.log(np.exp(10.0) + VOCABULARY - 1)
    for entry, token in zip(result.log_probabilities, ids_of("hi"), strict=True):
        assert entry.id == token
        assert entry.log_probability == pytest.approx(expected)
        assert [place for place, _ in entry.top] == [token, 0]
    assert answer("hi").read().log_probabilities is None


def test_callbacks_see_every_token_as_it_comes() -> None:
    seen = []
    result = answer("né", on_token=seen.append).read()
    assert [token.id for token in seen] == list(result.tokens)
    assert [token.text for token in seen] == ["n", "", "é"]


def test_an_error_of_a_callback_reaches_the_caller() -> None:
    def fail(token: object) -> None:
        raise KeyError("mine")

    generation = answer("abc", on_token=fail)
    with pytest.raises(KeyError, match="mine"):
        next(generation)
    assert generation.result.ended_by == "cancelled"


def test_the_whole_prompt_may_be_kept() -> None:
    """With a context of 12 the second half of what follows the prompt is what a shift leaves."""
    prompt = [START, *ids_of("abcdef")]
    session = repeating_in(12).session()
    shifted = generate(session, prompt, sampling=GREEDY, overflow="shift", keep=-1, max_tokens=20).read()
    assert shifted.shifts > 0
    assert session.tokens[: len(prompt)] == prompt
    for keep in (-2, -100):
        with pytest.raises(ValueError, match=f"keep is {keep}; expected"):
            generate(repeating_in(12), prompt, keep=keep)


def test_the_seed_of_the_result_gives_the_text_again() -> None:
    def model() -> FakeModel:
        return FakeModel(lambda tokens: tokens[-1])

    sampling = Sampling(temperature=5)
    first = generate(model(), PROMPT, sampling=sampling, max_tokens=20).read()
    again = generate(model(), PROMPT, sampling=Sampling(temperature=5, seed=first.seed), max_tokens=20).read()
    assert first.tokens == again.tokens


def test_a_sampler_goes_on_with_its_stream() -> None:
    model = FakeModel(lambda tokens: 40)
    sampler = Sampler(Sampling(temperature=9, seed=1))
    parts = [generate(model, PROMPT, sampling=sampler, max_tokens=10).read().tokens for _ in range(2)]
    whole = generate(model, PROMPT, sampling=Sampling(temperature=9, seed=1), max_tokens=20).read().tokens
    assert parts[0] + parts[1] == whole


def test_the_file_may_recommend_the_settings() -> None:
    model = repeating()
    model.metadata["general.sampling.temp"] = 0.0
    assert generate(model, PROMPT, max_tokens=5).read().text == "xxxxx"


def test_async_iteration_gives_the_same_pieces() -> None:
    async def collect() -> list[str]:
        return [piece async for piece in answer("async")]

    assert asyncio.run(collect()) == list("async")
