"""Answers are taken apart into reasoning, content and tool calls, the same way whatever pieces they arrive in."""

from __future__ import annotations

import json
import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from call_answers import ANSWERS, WEATHER
from llamacpu.chat.answer import AnswerReader, Event, Piece, ToolCall
from llamacpu.chat.reasoning import REASONING_TAGS
from llamacpu.chat.tool_calls import read_any, read_json, read_pythonic

TOOLS = (
    "get_weather",
    "add",
    "brave_search",
    "code_interpreter",
    "spotify.trending",
    "get-x",
    "2fa_check",
    "a/b",
    "ключ",
)
SCHEMAS = {"get_weather": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}, "add": {}}


def read(text: str, size: int | None = None, tools: tuple[str, ...] | None = TOOLS, **options: Any) -> dict[str, Any]:
    """The answer as a dict, read in pieces of `size` characters."""
    reader = AnswerReader(tools, **options)
    events: list[Event] = []
    for start in range(0, len(text), size or max(1, len(text))):
        events += reader.push(text[start : start + (size or len(text))])
    events += reader.finish()
    calls = [event for event in events if isinstance(event, ToolCall)]
    assert [call.index for call in calls] == list(range(len(calls)))
    assert all(len(call.id) == 9 and call.id.isalnum() for call in calls)
    return {
        "content": "".join(e.text for e in events if isinstance(e, Piece) and e.kind == "content"),
        "reasoning": "".join(e.text for e in events if isinstance(e, Piece) and e.kind == "reasoning"),
        "calls": [(call.name, json.loads(call.arguments)) for call in calls],
    }


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_taken_apart(name: str, size: int | None) -> None:
    text, expected = ANSWERS[name]
    assert read(text, size) == {"content": "", "reasoning": "", "calls": [], **expected}


def test_without_tools_nothing_is_a_call() -> None:
    for text, _ in ANSWERS.values():
        if not any(tag in text for pair in REASONING_TAGS for tag in pair):
            assert read(text, 3, tools=None)["content"] == text


def test_reasoning_may_be_left_in_the_text() -> None:
    assert read("<think>a</think>b", reasoning=False)["content"] == "<think>a</think>b"


def test_a_prompt_may_have_opened_the_reasoning() -> None:
    for size in (None, 1):
        found = read("So.\n</think>\n\nYes", size, begins_reasoning=True)
        assert found == {"reasoning": "So.", "content": "Yes", "calls": []}


def test_a_prompt_may_have_begun_the_recipient() -> None:
    for size in (None, 1):
        found = read('get_weather\n{"city": "Paris"}\n>>>all\nYes', size, begins_recipient=True)
        assert found == {"content": "Yes", "reasoning": "", "calls": [WEATHER]}
        assert read("Yes", size, begins_recipient=True)["content"] == "Yes"


def test_ids_of_the_model_are_kept() -> None:
    for text in (
        "[TOOL_CALLS]add[CALL_ID]abcDEF123[ARGS]{}",
        '[TOOL_CALLS][{"name": "add", "arguments": {}, "id": "abcDEF123"}]',
    ):
        reader = AnswerReader(TOOLS)
        (call,) = reader.push(text) + reader.finish()
        assert isinstance(call, ToolCall)
        assert call.id == "abcDEF123"
    reader = AnswerReader(TOOLS)
    twice = [event for event in reader.push(text + text) + reader.finish() if isinstance(event, ToolCall)]
    assert len({call.id for call in twice}) == 2


def test_numbers_stay_finite() -> None:
    for text in ('{"name": "add", "parameters": {"a": 1e999, "b": -1e999}}', "[add(a=1e999, b=-1e999)]"):
        (call,) = AnswerReader(TOOLS).push(text)
        assert isinstance(call, ToolCall)
        assert "nf" not in call.arguments
        assert json.loads(call.arguments) == {"a": 1.7976931348623157e308, "b": -1.7976931348623157e308}


def test_arguments_are_text_that_can_be_sent() -> None:
    (call,) = AnswerReader(TOOLS).push('{"name": "add", "parameters": {"a": "\\ud800é"}}')
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments.encode()) == {"a": "\ud800é"}


def test_values_in_elements_have_the_types_of_the_schema() -> None:
    text = '<function name="get_weather"><param name="city">12</param><param name="days">3</param></function>'
    for tools, city in ((SCHEMAS, "12"), ([*SCHEMAS], 12)):
        (call,) = AnswerReader(tools).push(text)
        assert isinstance(call, ToolCall)
        assert json.loads(call.arguments) == {"city": city, "days": 3}


def test_keys_that_are_left_out_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert read_json('{"name": "add", "parameters": {}, "confidence": 1}') == [("add", {})]
    assert "confidence" in caplog.text


def test_forced_calls_are_calls() -> None:
    deep = '{"a": ' * 90 + "1" + "}" * 90
    for arguments in ("{}", "null", '{"a": "' + "x" * 300_000 + '"}', deep, '{"a": 1e999}'):
        for size in (None, 5000):
            found = read(f'{{"name": "other {{x}}", "parameters": {arguments}}}', size, forced=True)
            assert [name for name, _ in found["calls"]] == ["other {x}"]
            assert found["content"] == ""


def test_control_tokens_are_dropped_from_the_content() -> None:
    drop = ("<|eom_id|>", "<|x|>", "<|python_tag|>")
    assert read("a<|x|>b<|eom_id|>", 1, drop=drop)["content"] == "ab"
    assert read('<|python_tag|>{"name": "add", "parameters": {}}<|eom_id|>', drop=drop)["calls"] == [("add", {})]


def test_text_comes_out_as_soon_as_it_is_certain() -> None:
    reader = AnswerReader(TOOLS)
    assert reader.push("Hello") == [Piece("content", "Hello")]
    assert reader.push(" <tool") == []
    assert reader.push("s") == [Piece("content", " <tools")]
    assert reader.push("<tool_call>") == []
    (call,) = reader.push('{"name": "add", "arguments": {}}</tool_call>')
    assert isinstance(call, ToolCall)
    reader = AnswerReader(TOOLS)
    assert reader.push('{"n') == []
    assert reader.push('": 1}') == [Piece("content", '{"n": 1}')]


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "f(" * 100_000,
        "[add(a=[" * 50_000,
        "```json\n{" * 50_000,
        '{"name": "add", "parameters": ' + '{"a": ' * 5000 + "1" + "}" * 5001,
        "[add(a=" + "[" * 500 + "]" * 500 + ")]",
        "[add(a=" + "-" * 5000 + "1)]",
        "[add(a=" + "1+" * 50_000 + "1)]",
        "[add(a=9" + "9" * 10_000 + ")]",
        "[add(a=0x" + "f" * 10_000 + ")]",
        '{"name": "add", "parameters": {"a": NaN}}',
        '{"name": "add", "parameters": {"a": ' + "9" * 10_000 + "}}",
        "[add(**{'a': 1})]",
        "[__import__('os').system(a='x')]",
        "[add(a=(lambda: 1)())]",
        "[add(a=[x for x in y])]",
        "add(a=1); import os",
        "\0[add(a=1)]",
    ],
)
def test_hostile_calls_are_text(text: str) -> None:
    assert read_any(text) is None
    assert read(text)["calls"] == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.from_regex(r"[a-z_]{1,6}", fullmatch=True) | st.sampled_from(keyword.kwlist)
arguments = st.dictionaries(names, json_values, max_size=4)


@given(arguments, st.integers(1, 9))
def test_arguments_survive_every_notation(given: dict[str, Any], size: int) -> None:
    text = json.dumps({"name": "add", "parameters": given}, ensure_ascii=False)
    assert read_json(text) == [("add", given)]
    assert read(text, size)["calls"] == [("add", given)]
    assert read(f"<tool_call>{text}</tool_call>", size)["calls"] == [("add", given)]
    for write in (repr, json.dumps):
        python = ", ".join(f"{name}={write(value)}" for name, value in given.items())
        assert read_pythonic(f"[add({python})]") == [("add", given)]
        assert read(f"[add({python})]", size)["calls"] == [("add", given)]


@given(st.text(max_size=40) | st.text("<think>{}[]()\"'name:tool_call/|add `~\n", max_size=60), st.integers(1, 5))
def test_pieces_do_not_matter_and_nothing_is_lost(text: str, size: int) -> None:
    whole, pieces = read(text), read(text, size)
    assert whole == pieces
    if not whole["calls"] and "<" not in text and "[T" not in text:
        assert whole["content"] == text
