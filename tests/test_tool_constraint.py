"""Strict tools: whatever a model wants to say, its calls are valid; and what is no call is not touched."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fake_llama import NAMES, Tokens, llama
from fake_model import END, START, VOCABULARY, ids_of
from llamacpu.chat.answer import AnswerReader, Piece, ToolCall
from llamacpu.chat.marks import CALL_TAGS, INNER_MARKS
from llamacpu.constraints.tool_constraint import ToolCallConstraint
from llamacpu.errors import GrammarError
from thorough import examples

pytest.importorskip("llguidance", reason="llguidance is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

__all__ = ["llama"]
BOOK = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Paris", "東京", 'a "quoted" one\\']},
        "nights": {"type": "integer", "minimum": 1, "maximum": 99},
        "rooms": {"type": "array", "items": {"$ref": "#/$defs/room"}, "minItems": 1, "maxItems": 2},
        "breakfast": {"type": "boolean"},
        "note": {"anyOf": [{"type": "null"}, {"type": "string", "maxLength": 6}]},
    },
    "required": ["city", "rooms"],
    "additionalProperties": False,
    "$defs": {
        "room": {
            "type": "object",
            "properties": {"beds": {"type": "integer", "minimum": 1, "maximum": 4}},
            "required": ["beds"],
            "additionalProperties": False,
        }
    },
}
TOOLS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": "book", "strict": True, "parameters": BOOK}},
    {"type": "function", "function": {"name": "book_now", "strict": True}},
    {"type": "function", "function": {"name": "web.search", "parameters": {"type": "object"}}},
]
SCHEMAS = {"book": BOOK, "book_now": {"type": "object", "maxProperties": 0}, "web.search": {"type": "object"}}


class TaggedTokens(Tokens):
    """A vocabulary in which the tags of calls are tokens."""

    eog = frozenset((END,))

    def __init__(self) -> None:
        super().__init__()
        marks = [
            *CALL_TAGS,
            *(tag for tag in CALL_TAGS.values() if tag and tag != "```"),
            *INNER_MARKS,
        ]
        self.marks = {VOCABULARY + place: mark for place, mark in enumerate(marks)}
        self.vocab_size = VOCABULARY + len(marks)

    def id_to_piece(self, token: int) -> str:
        return self.marks.get(token) or super().id_to_piece(token)

    def token_to_id(self, text: str) -> int | None:
        return next((token for token, name in {**NAMES, **self.marks}.items() if name == text), None)

    def decode_bytes(self, ids: Any, skip_special: bool = False) -> bytes:
        return b"".join(
            (b"" if skip_special else self.marks[i].encode())
            if i in self.marks
            else super(TaggedTokens, self).decode_bytes([i], skip_special)
            for i in ids
        )

    def ids_of(self, text: str) -> list[int]:
        """The ids of a text in which tags are meant as such."""
        found: list[int] = []
        while text:
            mark = next((token for token, name in self.marks.items() if text.startswith(name)), None)
            found += [mark] if mark is not None else self.encode(text[0], add_special=False)
            text = text[len(self.marks[mark]) if mark is not None else 1 :]
        return found


SWITCH = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
PLAIN, TAGGED = Tokens(), TaggedTokens()
CLOSINGS = (
    "</parameter>",
    "</param>",
    "</arg_value>",
    '<|"|>',
    "</｜DSML｜parameter>",
    "</atem:parameter>",
)
BEGINNINGS = {
    "Llama 3.1": '{"name": "book"',
    "the key first": '{"parameters": {"city',
    "with a type": '{"type": "function", "name',
    "as OpenAI writes it": '{"type": "function", "function": {',
    "a list": '[{"name": "',
    "pythonic": "[book(",
    "pythonic, without arguments": "[book_now(",
    "after a thought": '<think>{"name": "nosuch"}</think>\n{"name": "bo',
    "python tag": '<|python_tag|>{"name": "book", "par',
    "Hermes": 'Sure!\n<tool_call>\n{"name": "book"',
    "Mistral": '[TOOL_CALLS][{"name": "book", "arguments": {',
    "Mistral, newer": '[TOOL_CALLS]book[ARGS]{"',
    "Llama 4": "Let me see. <|python_start|>[book(city=",
    "tagged": "<function=book>{",
    "elements": '<function name="book"',
    "a fenced block": 'Like this:\n```json\n{"name": "book"',
    "a list in a fenced block": '```\n[{"name": "web.search", ',
    "a fence after a thought": '<think>hm</think>\n```tool_call\n{ "name": "book_now"',
    "Phi 4 mini, Granite 3": '<|tool_call|>[{"name": "book"',
    "Command R7B": '<|START_ACTION|>[{"tool_call_id": "0", "tool_name": "bo',
    "Command R": 'Action: ```json\n[{"tool_name": "book"',
    "Seed": "<seed:tool_call>\n<function=book>",
    "OLMo 3": "<function_calls>\nbook(city=",
    "Kimi K2": "<|tool_call_begin|>functions.book:0",
    "GLM 4": 'book\n{"ci',
    "GLM 4, after a thought": "<think>hm</think>\nbook_now \n\n{",
    "Gemma": "I look:\n```tool_code\nbook(city=",
    "DeepSeek V3.1": "<｜tool▁call▁begin｜>book<｜tool▁sep｜>{",
    "DeepSeek": "<｜tool▁call▁begin｜>function<｜tool▁sep｜>book\n```json\n",
    "DeepSeek V3.2": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="book',
    "DeepSeek V3.2, of any object": '<｜DSML｜function_calls>\n<｜DSML｜invoke name="web.search',
    "DeepSeek V4": 'Text.\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name="book_now">',
    "MiniMax": '<minimax:tool_call>\n<invoke name="book">\n<parameter name="city">',
    "Gemma 4": '<|tool_call>call:book{city:<|"|>',
    "Gemma 4, of any object": "<|tool_call>call:web.search{",
    "Gemma 4, behind a thought": "Hm<|channel>thought\nI call:book{<channel|><|tool_call>call:bo",
    "Qwen 3.5": "<tool_call>\n<function=book>\n<parameter=city>\n",
    "Qwen 3.5, without the outer tag": "<function=book>\n<parameter=city>",
    "GLM 4.5": "<tool_call>book\n<arg_key>city</arg_key>\n<arg_value>",
    "GLM 4.7": "<tool_call>web.search<arg_key>",
    "all in one object": '{"tool_calls": [{"name": "book"',
}


def write(
    tokens: Tokens, beginning: str, seed: int, limit: int = 1500, tools: Any = TOOLS, recipients: bool = False
) -> str:
    """What a model of random wishes writes after a beginning of its own, up to its end."""
    constraint = ToolCallConstraint(tools, tokens, begins_recipient=recipients)  # type: ignore[arg-type]
    return write_under_constraint(constraint, tokens, beginning, seed, limit)


def write_under_constraint(constraint: Any, tokens: Tokens, beginning: str, seed: int, limit: int = 1500) -> str:
    """The same under any constraint, which must allow the beginning token by token.

    Now and then it wants to close an element, which a text without a limit would otherwise never do.
    """
    closings = [tokens.ids_of(c) if isinstance(tokens, TaggedTokens) else tokens.encode(c, False) for c in CLOSINGS]
    closing: list[int] = []
    chance = np.random.default_rng(seed)
    likes = np.zeros(tokens.vocab_size, dtype=np.float32)
    likes[ids_of('"]}')] = 3
    likes[ids_of(" \n\\")] = -3
    likes[END] = 5
    coming = tokens.ids_of(beginning) if isinstance(tokens, TaggedTokens) else tokens.encode(beginning, False)
    ids = [START]
    while len(ids) < limit:
        wishes = (chance.normal(size=tokens.vocab_size) + likes).astype(np.float32)
        wishes[[START, *NAMES]] = -np.inf
        wishes[END] = likes[END]
        if not coming and not closing and chance.random() < 0.1:
            closing = [*closings[chance.integers(len(closings))]]
        if coming:
            wishes[coming[0]] = 100
        elif closing:
            wishes[closing[0]] = 50
        token = int(constraint(np.array(ids), wishes).argmax())
        if coming:
            assert token == coming.pop(0), (beginning, tokens.decode_bytes(ids), constraint)
        closing = closing[1:] if closing and token == closing[0] else []
        if token == END:
            return tokens.decode_bytes(ids[1:]).decode(errors="replace")
        ids.append(token)
    raise AssertionError(f"no end: {tokens.decode_bytes(ids)!r}")


def calls_in(text: str, recipients: bool = False) -> list[ToolCall]:
    reader = AnswerReader(SCHEMAS, only_tagged=True, begins_recipient=recipients)
    return [event for event in reader.push(text) + reader.finish() if isinstance(event, ToolCall)]


@pytest.mark.parametrize("tokens", [PLAIN, TAGGED], ids=["tags are spelled", "tags are tokens"])
@pytest.mark.parametrize("beginning", BEGINNINGS.values(), ids=BEGINNINGS)
def test_a_call_that_has_begun_becomes_a_valid_one(beginning: str, tokens: Tokens) -> None:
    for seed in range(4):
        text = write(tokens, beginning, seed)
        calls = calls_in(text)
        assert calls, text
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_every_notation_has_a_beginning() -> None:
    assert all(any(tag in beginning for beginning in BEGINNINGS.values()) for tag in CALL_TAGS)


KEYS = {
    "from": {"type": "integer"},
    "class": {"enum": ["a", "</tool_call>", "[TOOL_CALLS]"]},
    "in": {"type": "boolean"},
}
ODD_NAMES = ["get-x", "2fa_check", "a/b", "погода", "two words", 'a "b"', "x.call", "</tool_call>"]


def test_as_many_tools_as_a_request_may_have() -> None:
    tools = [
        {"type": "function", "function": {"name": f"f{n}", "strict": True, "parameters": SWITCH}} for n in range(128)
    ]
    assert allowed('{"name": "f127", "parameters": {"on": true}}', tools=tools)
    assert not allowed('{"name": "f127", "parameters": {"on": 1}}', tools=tools)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_what_the_constraint_admits_is_read_as_calls(name: str) -> None:
    schema = {"type": "object", "properties": KEYS, "required": ["from", "class"], "additionalProperties": False}
    function = {"name": name, "strict": True, "parameters": schema}
    other = {"name": "other", "strict": True, "parameters": {"type": "object", "properties": {"a b": {"type": "null"}}}}
    tools = [{"type": "function", "function": function}, {"type": "function", "function": other}]
    beginnings = ['{"name"', '{"function": ', '[{"type"', f"[{name}(", "[", *CALL_TAGS]
    read_back = 0
    for seed, beginning in enumerate(beginnings):
        for tokens in (PLAIN, TAGGED):
            if not allowed(beginning, tokens, tools, whole=False):
                continue
            text = write(tokens, beginning, seed, tools=tools)
            reader = AnswerReader({name: schema, "other": {}}, only_tagged=True)
            events = reader.push(text) + reader.finish()
            calls = [event for event in events if isinstance(event, ToolCall)]
            # What has begun like a call and has become none is text that no tag is in.
            assert calls or not any(tag in text for tag in CALL_TAGS), (text, events)
            # Behind a call there may be text again, but nothing of the call is in it.
            texts = [event.text for event in events if isinstance(event, Piece)]
            assert not calls or (isinstance(events[0], ToolCall) and '"from"' not in str(texts)), text
            for call in calls:
                assert call.name in (name, "other"), text
                if call.name == name:
                    jsonschema.validate(json.loads(call.arguments), schema)
            read_back += len(calls)
    assert read_back > 8


def allowed(
    text: str, tokens: Tokens = PLAIN, tools: Any = TOOLS, whole: bool = True, recipients: bool = False
) -> bool:
    """Whether an answer may be this text, or begin with it."""
    constraint = ToolCallConstraint(tools, tokens, begins_recipient=recipients)  # type: ignore[arg-type]
    ids = [START]
    written = tokens.ids_of(text) if isinstance(tokens, TaggedTokens) else tokens.encode(text, add_special=False)
    for token in [*written, *([END] if whole else [])]:
        if constraint(np.array(ids), np.zeros(tokens.vocab_size, dtype=np.float32))[token] == -math.inf:
            return False
        ids.append(token)
    return True


# No call can be complete in these words: whatever opens one is refused, and nothing else is.
WORDS = [
    "<tool_call>",
    '{"name"',
    '{"nam',
    "[",
    "{",
    " ",
    "\n",
    "n(",
    "book(",
    '"',
    ",",
    "}",
    "x",
    ":",
    "name",
    "<",
    "book",
]
OPENING = re.compile(r'.*<tool_call>|\s*(\{\s*"name"|\[\s*(\{\s*"name"|[a-z]+\()|book *\n\s*\{)', re.DOTALL)


@settings(deadline=None, max_examples=examples(200))
@given(st.lists(st.sampled_from(WORDS), max_size=8).map("".join))
@example("x[<tool_call>")
@example('book\n{"name"')
@example("[<tool_call>")
@example("[TOOL_CALL<tool_call>")
@example('[1, 2] <tool_call>{"name": "book", "arguments": {"city": "Rome"}}</tool_call>')
@example('{<tool_call>{"name": "book", "arguments": {"city": "Rome"}}</tool_call>')
def test_what_opens_a_call_must_become_one_and_all_else_may_be_said(text: str) -> None:
    opened = OPENING.match(text) is not None
    assert allowed(text) is not opened
    if not opened:
        reader = AnswerReader(list(SCHEMAS))
        events = reader.push(text) + reader.finish()
        assert "".join(event.text for event in events if isinstance(event, Piece)) == text
        assert all(isinstance(event, Piece) for event in events)


@pytest.mark.parametrize(
    "text",
    [
        "Hello there.",
        'Here: {"name": 1}',
        '{"answer": [1, 2], "b": null}',
        "[a link](http://example.org) and [1, 2]",
        "1 < 2 << 3 <b>bold</b> <tool>",
        "<think>I may call [book(x)] or <tool_call> later</think>No.",
        "{",
        "[",
        '{"nam',
    ],
)
def test_free_text(text: str) -> None:
    assert allowed(text)
    assert allowed(text, TAGGED)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "nosuch", "parameters": {}}',
        '{"name": "book", "parameters": {"city": "Rome"}}',
        '{"name": "book", "parameters": {"city": "Paris"',
        '[book(nights=2, city="Paris")]',
        "<tool_call>no",
        '<tool_call>{"name": "book_now", "arguments": {"x": 1}}</tool_call>',
        '```json\n{"name": "book", "parameters": {"city": "Rome"}}\n```',
        'So:\n```\n[{"name": "book_now", "arguments": {"x": 1}}]\n```',
    ],
)
def test_invalid_calls_cannot_be_said(text: str) -> None:
    assert not allowed(text)


@pytest.mark.parametrize(
    "function",
    [
        {"name": "f", "strict": True, "parameters": {"type": "string"}},
        {"name": "f", "strict": True, "parameters": {"anyOf": [{"type": "object"}]}},
        {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {}, "required": ["a"]}},
        {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": {"type": "nosuch"}}}},
        {"name": "f", "strict": True, "parameters": {"type": "object", "properties": {"a": 3}}},
        {"name": "f\ng"},
        {"name": 3},
        {},
        5,
    ],
)
def test_tools_that_cannot_be_used(function: Any) -> None:
    with pytest.raises(GrammarError):
        ToolCallConstraint([{"type": "function", "function": function}], PLAIN)  # type: ignore[arg-type]
