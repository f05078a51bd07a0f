"""Answers with recipients under constraints: calls are valid, a format holds the message to the user."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from fake_model import END, START, VOCABULARY
from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.recipients import RecipientReader
from llamacpu.constraints.grammar import Grammar
from llamacpu.constraints.recipients import RecipientConstraint
from llamacpu.errors import GrammarError
from test_channel_constraint import Channels
from test_recipients import FORMAT, NEXT, SELF, USER, call
from test_tool_constraint import SCHEMAS, TOOLS, write_under_constraint

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

MARKS = ["<|start|>", "<|message|>", "<|eom|>"]


class Recipients(Channels):
    """A vocabulary in which the marks of messages are tokens; the end of the turn is the end of the text."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = {VOCABULARY + place: mark for place, mark in enumerate(MARKS)}
        self.vocab_size = VOCABULARY + len(MARKS)


TAGGED = Recipients()


def allowed(text: str, end: bool = True, **held: Any) -> bool:
    """Whether an answer may be this text, or begin with it."""
    constraint = RecipientConstraint(TAGGED, **held)  # type: ignore[arg-type]
    ids = [START]
    for token in [*TAGGED.ids_of(text), *([END] if end else [])]:
        if constraint(np.array(ids), np.zeros(TAGGED.vocab_size, dtype=np.float32))[token] == -math.inf:
            return False
        ids.append(token)
    return True


def taken(text: str) -> tuple[str, str, list[ToolCall]]:
    reader = RecipientReader(SCHEMAS)
    events: list[Event] = reader.push(text) + reader.finish()
    kinds = [
        "".join(e.text for e in events if isinstance(e, Piece) and e.kind == kind) for kind in ("content", "reasoning")
    ]
    return kinds[0], kinds[1], [event for event in events if isinstance(event, ToolCall)]


@pytest.mark.parametrize("beginning", [
    call("book").partition("</atem:invoke>")[0],
    f"{SELF}{{to=nosuch}}{NEXT} to=book_now",
    f"{USER}I look.{NEXT} to=web.search<|message|>",
    f"{call('book_now')}{NEXT} to=book<|message|><atem:fun",
])  # fmt: skip
def test_calls_are_valid(beginning: str) -> None:
    for seed in range(4):
        text = write_under_constraint(RecipientConstraint(TAGGED, TOOLS), TAGGED, beginning, seed)  # type: ignore[arg-type]
        _, _, calls = taken(text)
        assert len(calls) >= 1 + beginning.count("</atem:invoke>"), text
        for found in calls:
            jsonschema.validate(json.loads(found.arguments), SCHEMAS[found.name])


def test_an_answer_that_must_call_thinks_first_and_calls() -> None:
    for seed, beginning in enumerate(("", SELF, f"{SELF}Hm", f"{SELF}Hm<|eom|>")):
        constraint = RecipientConstraint(TAGGED, TOOLS[:1], must_call=True)  # type: ignore[arg-type]
        content, reasoning, calls = taken(write_under_constraint(constraint, TAGGED, beginning, seed))
        assert calls
        assert not content
        assert reasoning.startswith("Hm" if "Hm" in beginning else "")
        for found in calls:
            jsonschema.validate(json.loads(found.arguments), SCHEMAS["book"])


def test_a_format_holds_the_message_to_the_user_alone() -> None:
    grammar = Grammar.json_schema(FORMAT)
    for seed, beginning in enumerate(("", SELF, f'{SELF}Is it {{"n": 12}}?', USER)):
        constraint = RecipientConstraint(TAGGED, final=grammar)  # type: ignore[arg-type]
        content, reasoning, calls = taken(write_under_constraint(constraint, TAGGED, beginning, seed))
        jsonschema.validate(json.loads(content), FORMAT)
        assert not calls
        assert reasoning.startswith(beginning.removeprefix(SELF) if SELF in beginning else "")


BOOK_ARGUMENTS = {"city": "Paris", "rooms": '[{"beds": 1}]'}


def test_what_may_be_said() -> None:
    for text in (
        f"{USER}Hello <atem:function_calls>",
        "<|message|>Hello",
        f"{SELF}to=nosuch<|eom|>",
        call("book_now"),
        f"{call('book', **BOOK_ARGUMENTS)}{NEXT}{USER}Done.",
        f"{call('book_now')}{NEXT}{call('web.search', q='<b>', n='1')}",
    ):
        assert allowed(text, tools=TOOLS), text
    for text in (
        "Hello",
        " to=nosuch<|message|>",
        call("book", recipient="book_now"),
        call("book", city="Rome"),
        call("book", city="Paris"),
        call("book_now", x="1"),
        call("book", **BOOK_ARGUMENTS).removesuffix(">"),
        f"{call('book_now')} and",
        f"{SELF}Hm<|start|>",
    ):
        assert not allowed(text, tools=TOOLS), text
    assert not allowed(f"{USER}Hello", end=False, tools=TOOLS, must_call=True)
    assert not allowed(" to=book", end=False, final=Grammar.any_json(), tools=TOOLS)
    assert allowed(f"Hello{NEXT}{call('book_now')}", tools=TOOLS, begun=True)
    assert not allowed(f"Hello{NEXT}{call('book_now', x='1')}", tools=TOOLS, begun=True)


def test_names_and_schemas_that_cannot_be_written() -> None:
    odd = {"type": "function", "function": {"name": "two words", "strict": True}}
    assert allowed(f"{USER}Hello", tools=[odd])
    with pytest.raises(GrammarError, match="expected names without white space"):
        RecipientConstraint(TAGGED, [odd], must_call=True)  # type: ignore[arg-type]
    parameters = {"type": "object", "properties": {"a<b": {"type": "string"}}}
    unable = {"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}
    with pytest.raises(GrammarError, match="arguments of the tool f cannot be enforced"):
        RecipientConstraint(TAGGED, [unable])  # type: ignore[arg-type]
