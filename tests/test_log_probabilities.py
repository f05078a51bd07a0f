"""Log-probabilities, offsets and usage in the shapes of the OpenAI API, and stop strings that name control tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_llama import NAMES, Tokens, llama
from fake_model import CONTROL, FIRST_BYTE, ids_of
from llamacpu import Model
from llamacpu.answers.log_probabilities import LogProbabilities
from llamacpu.errors import GGUFError, GrammarError, TemplateError
from llamacpu.llama import Llama
from llamacpu.sampling import Sampler, Sampling, TokenLogProbability
from llamacpu.text.stop_strings import StopStrings

__all__ = ["llama"]
GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 100}


def gathered(text: str, offset: int = 0) -> LogProbabilities:
    found = LogProbabilities(Tokens(), offset)  # type: ignore[arg-type]
    for token in ids_of(text):
        found.add(
            token, TokenLogProbability(-0.5, ((token, -0.5), (FIRST_BYTE + 0xC3, -1.0), (FIRST_BYTE + 0xC4, -2.0)))
        )
    return found


@given(st.text(max_size=12), st.integers(0, 5))
def test_offsets_count_characters_of_the_text(text: str, offset: int) -> None:
    """Every token of the fake tokenizer is a byte."""
    lists = gathered(text, offset).as_lists()
    expected = [offset + place for place, letter in enumerate(text) for _ in letter.encode()]
    assert (lists or {"text_offset": []})["text_offset"] == expected


@given(st.text(min_size=1, max_size=8))
def test_bytes_put_together_are_the_text(text: str) -> None:
    objects = gathered(text).as_objects()
    assert b"".join(bytes(entry["bytes"]) for entry in objects) == text.encode()
    lists = gathered(text).as_lists()
    assert lists is not None
    named = [n.removeprefix("bytes:") if n.startswith("bytes:") else "".join(f"\\x{b:02x}" for b in n.encode()) for n in lists["tokens"]]  # fmt: skip # noqa: E501
    assert "".join(named) == "".join(f"\\x{byte:02x}" for byte in text.encode())


def test_tokens_that_look_alike_stay_apart() -> None:
    twins = TokenLogProbability(300, -0.1, ((300, -0.1), (301, -0.2), (302, -0.3)))

    class Alike(Tokens):
        def decode_bytes(self, ids: Any, skip_special: bool = False) -> bytes:
            return b"same"

    found = LogProbabilities(Alike(), 0)  # type: ignore[arg-type]
    found.add(300, twins)
    found.add(302, TokenLogProbability(302, -4.0, ((300, -0.1),)))
    lists = found.as_lists()
    assert lists is not None
    assert lists["top_logprobs"] == [
        {"same": -0.1, "<token 301>": -0.2, "<token 302>": -0.3},
        {"same": -0.1, "<token 302>": -4.0},
    ]
    found.add(300, twins)
    assert [entry["logprob"] for entry in found.as_objects()[0]["top_logprobs"]] == [-0.1, -0.2, -0.3]


def test_none_asked_for_is_none_told(llama: Callable[..., Llama]) -> None:
    plain = llama("xy")("ab", logprobs=0, **GREEDY)["choices"][0]["logprobs"]
    assert plain["top_logprobs"] == [{}, {}]
    assert all(chance < 0 for chance in plain["token_logprobs"])
    messages = [{"role": "user", "content": "a"}]
    for top in (None, 0, 2):
        told = llama("xy").create_chat_completion(messages, logprobs=True, top_logprobs=top, **GREEDY)
        rows = told["choices"][0]["logprobs"]["content"]
        assert [row["token"] for row in rows] == ["x", "y"]
        assert [len(row["top_logprobs"]) for row in rows] == [top or 0] * 2
        assert [row["bytes"] for row in rows] == [[120], [121]]


def test_usage_comes_in_a_last_chunk_when_asked(llama: Callable[..., Llama]) -> None:
    messages = [{"role": "user", "content": "a"}]
    for ask in (
        lambda **more: llama("xy")("ab", **more, **GREEDY),
        lambda **more: llama("xy").create_chat_completion(messages, **more, **GREEDY),
    ):
        whole = ask()
        chunks = list(ask(stream=True, stream_options={"include_usage": True}))
        assert chunks[-1]["choices"] == []
        assert chunks[-1]["usage"] == whole["usage"]
        assert chunks[-1]["id"] == chunks[0]["id"]
        for options in (None, {}, {"include_usage": False}):
            plain = list(ask(stream=True, stream_options=options))
            assert len(plain) == len(chunks) - 1
            assert not any("usage" in chunk for chunk in plain)


@pytest.mark.parametrize("stop", [NAMES[CONTROL], f"b{NAMES[CONTROL]}", f"{NAMES[CONTROL]}c", f"b{NAMES[CONTROL]}c"])
def test_a_stop_string_may_name_a_control_token(llama: Callable[..., Llama], stop: str) -> None:
    model = llama([*ids_of("ab"), CONTROL, *ids_of("cd")])
    text = model("x", **GREEDY)["choices"][0]["text"]
    assert text == "abcd"
    stopped = model("x", stop=[stop], **GREEDY)["choices"][0]
    assert (stopped["text"], stopped["finish_reason"]) == ("a" if stop.startswith("b") else "ab", "stop")
    assert model("x", stop=["bc", "<|c|>x"], **GREEDY)["choices"][0]["text"] == "abcd"


pieces = st.lists(st.tuples(st.text("ab<>", max_size=4), st.booleans()), max_size=8)


@given(pieces, st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3))
def test_hidden_text_counts_and_is_not_shown(parts: list[tuple[str, bool]], stops: list[str]) -> None:
    strings = StopStrings(stops)
    out = "".join(strings.push(text, shown) for text, shown in parts) + strings.flush()
    letters = [(letter, shown) for text, shown in parts for letter in text]
    whole = "".join(letter for letter, _ in letters)
    ends = [len(whole)]
    for end in range(len(whole) + 1):
        found = [whole[:end].find(stop) for stop in stops if whole[:end].endswith(stop)]
        if found:
            ends = found
            break
    visible = ["".join(letter for letter, shown in letters[:end] if shown) for end in ends]
    # Of several in one piece the first counts: what comes out is never more than up to the first that is complete.
    assert out in visible or any(len(out) <= len(text) for text in visible)
    if not any(stop in whole for stop in stops):
        assert out == "".join(letter for letter, shown in letters if shown)
        assert strings.found is None


@pytest.mark.parametrize("seed", [-1, 0xFFFFFFFF, None])
def test_any_seed_is_drawn_everywhere(llama: Callable[..., Llama], seed: int | None) -> None:
    assert Sampling(seed=seed).seed is None
    found = llama("xy", seed=-1 if seed is None else seed)
    assert found("a", seed=seed, max_tokens=2)["choices"][0]["text"]
    assert len({Sampler(Sampling(seed=seed), 10).seed for _ in range(4)}) > 1


def test_half_a_surrogate_pair_is_told_in_words(llama: Callable[..., Llama]) -> None:
    with pytest.raises(ValueError, match="a stop string has half of a surrogate pair") as caught:
        llama("xy")("a", stop=["\udc00"])
    assert type(caught.value) is ValueError
    with pytest.raises(ValueError, match="the suffix has half of a surrogate pair"):
        llama("xy")("a", suffix="\udc00")


def test_every_message_can_be_printed() -> None:
    for kind in (GGUFError, GrammarError, TemplateError):
        str(kind("a \ud83d é")).encode()
        assert str(kind("a \ud83d é")) == "a \\ud83d é"
    with pytest.raises(GGUFError) as caught:
        Model("a\ud83d.gguf")
    str(caught.value).encode()
