"""Strict tools: recipients, fenced blocks, limits of texts in elements, and what is kept of a grammar."""

from __future__ import annotations

import json
import weakref
from functools import partial
from typing import Any

import numpy as np
import pytest

from fake_llama import Tokens
from fake_model import START, VOCABULARY
from llamacpu import CancelToken
from llamacpu.answers.tools import grammar_of_tools
from llamacpu.chat.answer import AnswerReader, Piece, ToolCall
from llamacpu.constraints.after_reasoning import AfterReasoning
from llamacpu.constraints.compiler import compiler_of
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.tool_constraint import ToolCallConstraint
from llamacpu.errors import Cancelled, GrammarError
from test_grammar import write as write_under
from test_tool_constraint import PLAIN, SCHEMAS, TAGGED, TOOLS, allowed, calls_in, write

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

ADDRESSED = {
    "a function": "book\n",
    "text, then a function": "all\nLet me see >>>book\n>>>book\n",
    "two functions": 'book_now\n{}\n>>>book\n{"',
    "two functions without a line break": "book_now\n{}>>>web.search\n{",
    "a call in the text for all": 'all\n{"name": "book"',
}


@pytest.mark.parametrize("tokens", [PLAIN, TAGGED], ids=["tags are spelled", "tags are tokens"])
@pytest.mark.parametrize("beginning", ADDRESSED.values(), ids=ADDRESSED)
def test_calls_after_a_recipient_are_valid(beginning: str, tokens: Tokens) -> None:
    for seed in range(4):
        text = write(tokens, beginning, seed, recipients=True)
        calls = calls_in(text, recipients=True)
        assert len(calls) >= beginning.count("book") - beginning.count("see >>>book"), text
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMAS[call.name])


def test_an_answer_to_a_prompt_for_a_recipient_begins_with_one() -> None:
    for text in (
        "Hello",
        "nosuch\n{}",
        'book\n{"city": "Rome"',
        "book{",
        'all\n\n>>>book\n{"city": "Rome"',
        "<tool_call>",
    ):
        assert not allowed(text, whole=False, recipients=True), text
    for text in (
        "all\nHello. 1 >>> 0\n>>>nosuch\n",
        "all\n```json\n{}\n```",
        'book\n{"city": "Paris", "rooms": [{"beds": 1}]}',
    ):
        assert allowed(text, recipients=True), text
    # Elsewhere this is text.
    assert allowed('>>>book\n{"city": "Rome"}')


@pytest.mark.parametrize("text", [
    '```json\n{"name": "Ada", "parameters": {}}\n```',
    '```json\n{"city": "Rome"}\n```',
    "```python\nbook()\n```",
    '```\n["book"]\n```',
    '``{"name": "book", "x": 1}``',
    '```json\n{"name": "booked"}\n```',
])  # fmt: skip
def test_a_fenced_block_that_is_no_call(text: str) -> None:
    assert allowed(text)
    reader = AnswerReader(SCHEMAS, only_tagged=True)
    events = reader.push(text) + reader.finish()
    assert "".join(event.text for event in events if isinstance(event, Piece)) == text


LIMITED = {
    "type": "object",
    "properties": {
        "short": {"type": "string", "minLength": 1, "maxLength": 5},
        "code": {"type": "string", "pattern": "^[A-Z]{2}/[0-9]+$"},
        "part": {"type": "string", "pattern": "x[ab]", "maxLength": 6},
        "day": {"type": "string", "format": "date"},
        "free": {"type": "string", "format": "nosuch", "maxLength": 4},
    },
    "required": ["short", "code", "part", "day", "free"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("tokens", [PLAIN, TAGGED], ids=["tags are spelled", "tags are tokens"])
def test_texts_in_elements_keep_their_limits(tokens: Tokens) -> None:
    tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": LIMITED}}]
    for seed in range(6):
        text = write(tokens, '<function name="f"', seed, tools=tools)
        reader = AnswerReader({"f": LIMITED}, only_tagged=True)
        (call,) = (event for event in reader.push(text) + reader.finish() if isinstance(event, ToolCall))
        checker = jsonschema.Draft202012Validator(LIMITED, format_checker=jsonschema.FormatChecker())
        checker.validate(json.loads(call.arguments))


@pytest.mark.parametrize(
    "parameters", [{"properties": {"on": {"type": "boolean"}}}, {}, None, {"type": ["object", "null"]}]
)
def test_arguments_are_always_an_object(parameters: Any) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    for seed in range(8):
        call = json.loads(write_under(grammar_of_tools([tool], "f"), seed))
        assert isinstance(call["parameters"], dict), call
        assert parameters is not None or call["parameters"] == {}


def test_parameters_that_are_no_object_are_refused() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(GrammarError, match="tool f have the type 'string'"):
        grammar_of_tools([tool], None)
    with pytest.raises(GrammarError, match="tool has the name"):
        grammar_of_tools(["f"], None)


def test_work_is_stopped_before_its_next_step() -> None:
    cancel = CancelToken()
    constraint = ToolCallConstraint(TOOLS, PLAIN)  # type: ignore[arg-type]
    held = AfterReasoning(partial(Grammar.any_json().constraint, PLAIN), PLAIN, "</think>")  # type: ignore[arg-type]
    for process in (constraint, held):
        process.stop_with(cancel)
        ids, logits = [START], np.zeros(VOCABULARY, dtype=np.float32)
        for token in PLAIN.encode('</think>{"name"', add_special=False):
            process(np.array(ids), logits)
            ids.append(token)
    cancel.cancel()
    for process in (constraint, held):
        with pytest.raises(Cancelled):
            process(np.array(ids), logits)


def test_what_was_compiled_is_kept_and_the_vocabulary_goes_with_its_tokenizer() -> None:
    tokens = Tokens()
    ToolCallConstraint(TOOLS, tokens)  # type: ignore[arg-type]
    kept = compiler_of(tokens)  # type: ignore[arg-type]
    first = kept.made(json.dumps([TOOLS, False]), lambda: None)
    assert first is not None
    again = ToolCallConstraint(TOOLS, tokens)  # type: ignore[arg-type]
    assert again._grammars is first
    gone = weakref.ref(tokens)
    del tokens, kept, again, first
    assert gone() is None
