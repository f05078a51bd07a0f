"""Answers are taken apart into reasoning, content and tool calls, the same way whatever pieces they arrive in."""

# ruff: noqa: E501, RUF001 (answers as they are)

from __future__ import annotations

import json
import keyword
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacpu.chat.answer import AnswerReader, Event, Piece, ToolCall
from llamacpu.chat.tool_calls import read_any, read_json, read_pythonic

TOOLS = ("get_weather", "add", "brave_search", "code_interpreter", "spotify.trending")


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


WEATHER = ("get_weather", {"city": "Paris"})
ANSWERS: dict[str, tuple[str, dict[str, Any]]] = {
    "text": ("Hello there.", {"content": "Hello there."}),
    "Llama 3.1": ('{"name": "get_weather", "parameters": {"city": "Paris"}}', {"calls": [WEATHER]}),
    "leading blanks": ('\n\n{"name": "get_weather", "parameters": {"city": "Paris"}}\n', {"calls": [WEATHER]}),
    "with a type": (
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        {"calls": [WEATHER]},
    ),
    "as OpenAI writes it": (
        '{"type": "function", "function": {"name": "get_weather", "arguments": "{\\"city\\": \\"Paris\\"}"}}',
        {"calls": [WEATHER]},
    ),
    "several": (
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "add", "arguments": {"a": "1"}}',
        {"calls": [WEATHER, ("add", {"a": "1"})]},
    ),
    "python tag": ('<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', {"calls": [WEATHER]}),
    "built-in": ('<|python_tag|>brave_search.call(query="a \\"b\\"")', {"calls": [("brave_search", {"query": 'a "b"'})]}),
    "code": ("<|python_tag|>print(1)\nx = [2", {"calls": [("code_interpreter", {"code": "print(1)\nx = [2"})]}),
    "pythonic": (
        '[get_weather(city="Paris"), add(a=-1, b=[1.5, {"c": None}], d=True, e=false)]',
        {"calls": [WEATHER, ("add", {"a": -1, "b": [1.5, {"c": None}], "d": True, "e": False})]},
    ),
    "dotted": ("[spotify.trending(n=20)]", {"calls": [("spotify.trending", {"n": 20})]}),
    "Llama 4": ('<|python_start|>[get_weather(city="Paris")]<|python_end|>', {"calls": [WEATHER]}),
    "Llama 4 JSON": (
        'Let me look.<|python_start|>{"name": "get_weather", "parameters": {"city": "Paris"}}<|python_end|>',
        {"content": "Let me look.", "calls": [WEATHER]},
    ),
    "Hermes": ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>', {"calls": [WEATHER]}),
    "Qwen": (
        'I will.\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call>',
        {"content": "I will.", "calls": [WEATHER, ("add", {})]},
    ),
    "unclosed": ('<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}', {"calls": [WEATHER]}),
    "Mistral": (
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "abcdefghi"}, '
        '{"name": "add", "arguments": {"a": 1}}]',
        {"calls": [WEATHER, ("add", {"a": 1})]},
    ),
    "Mistral 11": (
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]add{"a": 1}',
        {"calls": [WEATHER, ("add", {"a": 1})]},
    ),
    "tagged": (
        '<function=get_weather>{"city": "Paris"}</function><function=add>{"a": 1}</function>',
        {"calls": [WEATHER, ("add", {"a": 1})]},
    ),
    "DeepSeek": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n"
        '{"city": "Paris"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        {"calls": [WEATHER]},
    ),
    "reasoning": ("<think>\nHm, {x}\n</think>\n\nYes.", {"reasoning": "Hm, {x}", "content": "Yes."}),
    "reasoning and a call": (
        '<think>So.</think>\n<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>',
        {"reasoning": "So.", "calls": [("add", {"a": 1})]},
    ),
    "reasoning without an end": ("<think>Hm", {"reasoning": "Hm"}),
    "Magistral": ("[THINK]Hm[/THINK]Yes", {"reasoning": "Hm", "content": "Yes"}),
    "unknown function": ('{"name": "other", "parameters": {}}', {"content": '{"name": "other", "parameters": {}}'}),
    "other JSON": ('{"answer": 42}', {"content": '{"answer": 42}'}),
    "other list": ("[1, 2, 3]", {"content": "[1, 2, 3]"}),
    "link": ("[text](http://a.b/c)", {"content": "[text](http://a.b/c)"}),
    "half a call": ('{"name": "get_weather", "para', {"content": '{"name": "get_weather", "para'}),
    "not a literal": ("[get_weather(city=open('x'))]", {"content": "[get_weather(city=open('x'))]"}),
    "positional": ("[get_weather('Paris')]", {"content": "[get_weather('Paris')]"}),
    "broken in tags": ("<tool_call>\nnope\n</tool_call>", {"content": "\nnope\n"}),
    "a lone bracket": ("a < b and [", {"content": "a < b and ["}),
    "strings with brackets": (
        '{"name": "add", "parameters": {"a": "}]\\"{", "b": "it\'s"}}',
        {"calls": [("add", {"a": '}]"{', "b": "it's"})]},
    ),
}  # fmt: skip


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7])
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_are_taken_apart(name: str, size: int | None) -> None:
    text, expected = ANSWERS[name]
    assert read(text, size) == {"content": "", "reasoning": "", "calls": [], **expected}


def test_without_tools_nothing_is_a_call() -> None:
    for text, _ in ANSWERS.values():
        if not text.startswith(("<think>", "[THINK]")):
            assert read(text, 3, tools=None)["content"] == text


def test_reasoning_may_be_left_in_the_text() -> None:
    assert read("<think>a</think>b", reasoning=False)["content"] == "<think>a</think>b"


def test_a_prompt_may_have_opened_the_reasoning() -> None:
    for size in (None, 1):
        found = read("So.\n</think>\n\nYes", size, begins_reasoning=True)
        assert found == {"reasoning": "So.", "content": "Yes", "calls": []}


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
    assert reader.push('{"n": 1') == []
    assert reader.push(" " * 100) != []


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "f(" * 100_000,
        '{"name": "add", "parameters": ' + '{"a": ' * 5000 + "1" + "}" * 5001,
        "[add(a=" + "[" * 500 + "]" * 500 + ")]",
        "[add(a=" + "-" * 5000 + "1)]",
        "[add(a=" + "1+" * 50_000 + "1)]",
        "[add(a=9" + "9" * 10_000 + ")]",
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
arguments = st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), json_values, max_size=4)


@given(arguments, st.integers(1, 9))
def test_arguments_survive_every_notation(given: dict[str, Any], size: int) -> None:
    text = json.dumps({"name": "add", "parameters": given}, ensure_ascii=False)
    assert read_json(text) == [("add", given)]
    assert read(text, size)["calls"] == [("add", given)]
    if "</tool_call>" not in text:
        assert read(f"<tool_call>{text}</tool_call>", size)["calls"] == [("add", given)]
    python = ", ".join(f"{name}={value!r}" for name, value in given.items())
    if not any(map(keyword.iskeyword, given)):
        assert read_pythonic(f"[add({python})]") == [("add", given)]
        assert read(f"[add({python})]", size)["calls"] == [("add", given)]


@given(st.text(max_size=40) | st.text("<think>{}[]()\"'name:tool_call/|add ", max_size=60), st.integers(1, 5))
def test_pieces_do_not_matter_and_nothing_is_lost(text: str, size: int) -> None:
    whole, pieces = read(text), read(text, size)
    # White space around a call may be dropped with it or not; all else is the same.
    assert {**whole, "content": whole["content"].strip()} == {**pieces, "content": pieces["content"].strip()}
    if not whole["calls"] and "<" not in text and "[T" not in text:
        assert whole["content"] == text
