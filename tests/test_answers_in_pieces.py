"""Whatever a model writes, the events of a streamed answer add up to those of the whole one."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacpu.chat.answer import AnswerReader, Event, Piece, ToolCall
from llamacpu.chat.marks import CALL_TAGS
from llamacpu.chat.reasoning import REASONING_TAGS
from thorough import examples

TOOLS = {"add": {"type": "object", "properties": {"a": {"type": "integer"}, "s": {"type": "string"}}}, "python": {}}
TAGS = [*CALL_TAGS, *(tag for tag in CALL_TAGS.values() if tag), *(tag for pair in REASONING_TAGS for tag in pair)]
CALL = '{"name": "add", "arguments": {"a": 1}}'
FRAGMENTS = [
    *TAGS, CALL, '{"name": "add", "parameters": {"s": "</tool_call>[TOOL_CALLS]\\"}"}}', "[add(a=1)]", "add",
    "python", '[add(a=1, s="]"), add(b)]', '{"name": "nope", "x": "', "}", "]", "[", "{", '"', "'", "\\", "`",
    "```", "```json\n", "~", "~~~", "\n", " ", ">>>", ">>>add\n", ">>>all\n", ">>>python\n", "[ARGS]", "[CALL_ID]",
    "abcdefghi", "text", ";", ",", "<", "</", '"f">', '<param name="a">', "</param>", "<parameter=s>",
    "</parameter>", "add>", "<|x|>", "<|x|>y", "<|", "(", ")", "=", "<｜tool▁sep｜>", "function", "[{",
    "```tool_code\n", "add(a=1)", "print(add(a=1))\n```", "add\n", f"[{CALL}, {{}}]", '{"a": ', "x", "call:add{",
    "a:1", '<|"|>', "call:add{}", "<arg_key>a</arg_key>", "<arg_value>", "</arg_value>",
    '<｜DSML｜invoke name="add">', '<｜DSML｜parameter name="a" string="false">', "</｜DSML｜parameter>",
    "</｜DSML｜invoke>", "<|channel>", '<invoke name="add">', '<parameter name="s">', "</invoke>",
    f'{{"tool_calls": [{CALL}]}}', "<function=add>",
]  # fmt: skip
texts = st.lists(st.sampled_from(FRAGMENTS), max_size=12).map("".join) | st.text("<>{}[]()\"'`\\n ad=:,", max_size=40)
options = st.fixed_dictionaries(
    {},
    optional={
        "reasoning": st.booleans(),
        "begins_reasoning": st.sampled_from([True, "</seed:think>"]),
        "unopened": st.just(True),
        "begins_recipient": st.just(True),
        "forced": st.just(True),
        "only_tagged": st.just(True),
        "drop": st.just(("<|x|>", "<|x|>y", "[ARGS]", "</think>")),
    },
)


def read(pieces: list[str], tools: Any = TOOLS, **given: Any) -> list[Any]:
    """The answer as a list of stretches and calls."""
    reader = AnswerReader(tools, **given)
    events: list[Event] = []
    for piece in pieces:
        events += reader.push(piece)
    found: list[Any] = []
    for event in events + reader.finish():
        if isinstance(event, ToolCall):
            found.append((event.name, json.loads(event.arguments)))
        elif found and isinstance(found[-1], Piece) and found[-1].kind == event.kind:
            found[-1] = Piece(event.kind, found[-1].text + event.text)
        else:
            assert event.text
            found.append(event)
    return found


@settings(max_examples=examples(600), deadline=None)
@given(texts, st.data(), options, st.booleans())
def test_streamed_and_whole_answers_agree(text: str, data: st.DataObject, given: dict[str, Any], tools: bool) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    offered = TOOLS if tools else None
    whole = read([text], offered, **given)
    assert read(pieces, offered, **given) == whole
    assert read([*text], offered, **given) == whole


@pytest.mark.parametrize("text", ["```Action: ```json", "```\nAction: ```json", "``` Action: ```x ```"])
def test_a_fence_may_be_the_end_of_a_longer_mark(text: str) -> None:
    assert read([*text], TOOLS) == read([text], TOOLS)


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from([*(f for f in FRAGMENTS if f not in TAGS and ">>>" not in f), '"id": 1'])).map("".join))
def test_what_is_no_call_is_not_touched(text: str) -> None:
    found = read([text])
    if not any(tag in text for tag in TAGS) and all(isinstance(event, Piece) for event in found):
        assert "".join(event.text for event in found) == text


@settings(max_examples=examples(200), deadline=None)
@given(texts)
def test_no_tag_is_shown_half(text: str) -> None:
    reader = AnswerReader(TOOLS)
    for place, letter in enumerate(text):
        begun = next((tag[:-1] for tag in CALL_TAGS if text[: place + 1].endswith(tag[:-1])), None)
        for event in reader.push(letter):
            # What no call could be made of is text, once it is complete.
            if begun and isinstance(event, Piece) and event.kind == "content" and letter not in ">]}`":
                assert not event.text.endswith(begun)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": ' * 3000,
        "[f(" * 3000,
        "```json\n{" * 2000,
        ">>>" * 5000,
        "<tool_call>" * 3000,
        '<|tool_call>call:f{a:<|"|>' * 1500,
        "<channel|>" * 5000,
        "<|channel>thought" * 3000,
        "<tool_call><function=f>" * 1500,
        "<｜DSML｜function_calls>" * 1000,
    ],
)
def test_long_answers_take_no_time(text: str) -> None:
    assert read([*text]) == read([text])
