"""Answers in channels (gpt-oss): the same in any pieces, and told apart in a conversation."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_llama import Model, Writer, llama
from llamacpu.answers import chat_prompt, chat_question
from llamacpu.chat import Chat
from llamacpu.chat.builtin import builtin, source_of
from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.harmony import HarmonyReader

__all__ = ["llama"]
FINAL = "<|channel|>final<|message|>"
ANALYSIS = "<|channel|>analysis<|message|>"
CALL = '<|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"n": 1}<|call|>'
ANSWERS: dict[str, tuple[str, tuple[str, str, list[Any]]]] = {
    "final": (f"{FINAL}Yes.<|return|>", ("Yes.", "", [])),
    "both": (f"{ANALYSIS}Hm {{x}} <b>.<|end|><|start|>assistant{FINAL}Yes, <|", ("Yes, <|", "Hm {x} <b>.", [])),
    "a call": (f"{ANALYSIS}Hm<|end|>{CALL}", ("", "Hm", [("f", {"n": 1})])),
    "a preamble": (
        f"<|channel|>commentary<|message|>I look.<|end|>{CALL}",
        ("I look.", "", [("f", {"n": 1})]),
    ),
    "the recipient first": (
        ' to=functions.f<|channel|>commentary<|constrain|>json<|message|>{"n": 2}<|call|>',
        ("", "", [("f", {"n": 2})]),
    ),
    "code": (
        "<|channel|>analysis to=python code<|message|>print(1)<|call|>",
        ("", "", [("python", {"code": "print(1)"})]),
    ),
    "no JSON": ("<|channel|>commentary to=functions.f<|message|>{n}<|call|>", ("{n}", "", [])),
    "without channels": ("Just text, to=f <|x|>", ("Just text, to=f <|x|>", "", [])),
    "cut off": (f"{ANALYSIS}Hm", ("", "Hm", [])),
    "cut off in a header": (f"{ANALYSIS}Hm<|end|><|start|>assistant<|chan", ("", "Hm", [])),
    "cut off in a call": (CALL.removesuffix("<|call|>"), ("", "", [("f", {"n": 1})])),
    "nothing": ("", ("", "", [])),
}


def read(text: str, cuts: list[int], **options: Any) -> tuple[str, str, list[Any]]:
    reader = HarmonyReader(["f", "python"], **options)
    events: list[Event] = []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        events += reader.push(text[start:end])
    events += reader.finish()
    kinds = {
        kind: "".join(e.text for e in events if isinstance(e, Piece) and e.kind == kind)
        for kind in ("content", "reasoning")
    }
    calls = [(e.name, json.loads(e.arguments)) for e in events if isinstance(e, ToolCall)]
    assert [e.index for e in events if isinstance(e, ToolCall)] == list(range(len(calls)))
    return kinds["content"], kinds["reasoning"], calls


@pytest.mark.parametrize("name", ANSWERS)
@given(data=st.data())
def test_answers_in_channels_are_taken_apart(name: str, data: st.DataObject) -> None:
    text, expected = ANSWERS[name]
    assert read(text, sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))) == expected
    assert read(text, list(range(len(text)))) == expected


@given(
    st.lists(st.sampled_from([FINAL, ANALYSIS, CALL, "<|end|>", "<|start|>", "a", "<|", " ", "to=x", "|>"])), st.data()
)
def test_any_text_is_the_same_in_any_pieces(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    assert read(text, sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))) == read(text, [])


def test_reasoning_is_content_where_it_is_not_told_apart() -> None:
    assert read(f"{ANALYSIS}Hm<|end|><|start|>assistant{FINAL}Yes", [], reasoning=False) == (
        "<think>\nHm\n</think>\n\nYes",
        "",
        [],
    )
    reader = HarmonyReader(None)
    assert [e for e in reader.push(CALL) + reader.finish() if isinstance(e, ToolCall)] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_conversation_in_channels(llama: Callable[..., Any], stream: bool) -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant"
    )
    model = llama(f"{ANALYSIS}Hm<|end|><|start|>assistant{FINAL}Yes.", template)
    found = model.create_chat_completion([{"role": "user", "content": "Hi"}], stream=stream, max_tokens=300)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in found]
        message = {key: "".join(delta.get(key) or "" for delta in deltas) for key in ("content", "reasoning_content")}
    else:
        message = found["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Yes.", "Hm")


def test_a_start_without_a_header_is_text() -> None:
    text = "<|start|>" + "a" * 1200
    assert read(text, []) == read(text, list(range(len(text)))) == (text, "", [])


def test_an_answer_that_has_begun_continues_in_the_channel_for_the_user() -> None:
    source = source_of(builtin("gpt-oss"))
    chat = Chat.of(Model(Writer(""), source))
    begun = {"role": "assistant", "content": "It is", "reasoning_content": "Hm"}
    prompt = chat_prompt(chat, [{"role": "user", "content": "Hi"}, begun], continue_last=True)
    text = chat.tokenizer.decode(prompt.ids)
    assert text.endswith(f"<|start|>assistant{ANALYSIS}Hm<|end|><|start|>assistant{FINAL}It is")
    reader = chat_question(chat, prompt).reader
    assert reader is not None
    assert reader.push(" late.") + reader.finish() == [Piece("content", " late.")]
