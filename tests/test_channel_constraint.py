"""Constraints in channels (gpt-oss): what is thought is free, calls are valid, and a format holds the final message."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fake_llama import Tokens, llama
from fake_model import END, START, VOCABULARY
from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.harmony import HarmonyReader
from llamacpu.constraints.channels import ChannelConstraint
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import GrammarError
from test_tool_constraint import SCHEMAS, TOOLS, TaggedTokens, write_under_constraint

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

__all__ = ["llama"]
MARKS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|constrain|>", "<|call|>"]
ANALYSIS = "<|channel|>analysis<|message|>"
FORMAT = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9}}, "required": ["n"]}
CODE = {"type": "function", "function": {"name": "python"}}


class Channels(TaggedTokens):
    """A vocabulary in which the marks of channels are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.marks = {VOCABULARY + place: mark for place, mark in enumerate(MARKS)}
        self.vocab_size = VOCABULARY + len(MARKS)

    def encode(self, text: str | bytes, *args: Any, parse_special: bool = False, **given: Any) -> list[int]:
        plain = text.decode() if isinstance(text, bytes) else text
        return self.ids_of(plain) if parse_special else super().encode(text, *args, **given)


PLAIN, TAGGED = Tokens(), Channels()
TOKENS = pytest.mark.parametrize("tokens", [PLAIN, TAGGED], ids=["marks are spelled", "marks are tokens"])


def written(tokens: Tokens, beginning: str, seed: int, limit: int = 1500, **held: Any) -> str:
    """What a model of random wishes writes after a beginning of its own, up to its end."""
    constraint = ChannelConstraint(tokens, **held)  # type: ignore[arg-type]
    return write_under_constraint(constraint, tokens, beginning, seed, limit)


def allowed(text: str, tokens: Tokens = TAGGED, end: bool = True, **held: Any) -> bool:
    """Whether an answer may be this text, or begin with it."""
    constraint = ChannelConstraint(tokens, **held)  # type: ignore[arg-type]
    ids = [START]
    coming = tokens.ids_of(text) if isinstance(tokens, Channels) else tokens.encode(text, add_special=False)
    for token in [*coming, *([END] if end else [])]:
        if constraint(np.array(ids), np.zeros(tokens.vocab_size, dtype=np.float32))[token] == -math.inf:
            return False
        ids.append(token)
    return True


def read(text: str) -> tuple[str, str, list[ToolCall]]:
    """Content, reasoning and calls."""
    reader = HarmonyReader([*SCHEMAS, "python"])
    events: list[Event] = reader.push(text) + reader.finish()
    kinds = [
        "".join(e.text for e in events if isinstance(e, Piece) and e.kind == kind) for kind in ("content", "reasoning")
    ]
    return kinds[0], kinds[1], [event for event in events if isinstance(event, ToolCall)]


@TOKENS
@pytest.mark.parametrize("beginning", [
    "<|channel|>commentary to=functions.book <|constrain|>json<|message|>{",
    f'{ANALYSIS}{{"city": 1}} to=functions.nosuch.<|end|><|start|>assistant<|channel|>commentary to=functions.book_now',
    ' to=functions.book<|channel|>commentary json<|message|>{"city',
    "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant<|channel|>commentary to=functions.web.search",
])  # fmt: skip
def test_calls_are_valid(beginning: str, tokens: Tokens) -> None:
    for seed in range(4):
        text = written(tokens, beginning, seed, tools=TOOLS)
        _, _, calls = read(text)
        assert len(calls) == 1, text
        jsonschema.validate(json.loads(calls[0].arguments), SCHEMAS[calls[0].name])


@TOKENS
def test_an_answer_that_must_call_thinks_first_and_calls(tokens: Tokens) -> None:
    for seed, beginning in enumerate(("", ANALYSIS, f"{ANALYSIS}Hm", f"{ANALYSIS}Hm<|end|>")):
        _, reasoning, calls = read(written(tokens, beginning, seed, tools=TOOLS[:1], must_call=True))
        assert [call.name for call in calls] == ["book"]
        assert reasoning.startswith("Hm" if "Hm" in beginning else "")
        jsonschema.validate(json.loads(calls[0].arguments), SCHEMAS["book"])


@TOKENS
def test_a_format_holds_the_final_message_alone(tokens: Tokens) -> None:
    grammar = Grammar.json_schema(FORMAT)
    for seed, beginning in enumerate(("", ANALYSIS, f'{ANALYSIS}Is it {{"n": 12}}?', "<|channel|>final<|message|>")):
        content, reasoning, calls = read(written(tokens, beginning, seed, final=grammar))
        jsonschema.validate(json.loads(content), FORMAT)
        assert not calls
        assert reasoning.startswith(beginning.removeprefix(ANALYSIS) if ANALYSIS in beginning else "")


def test_what_may_be_said() -> None:
    for text in (
        "<|channel|>final<|message|>Hello {\"name\": \"book\"}",
        f"{ANALYSIS}to=functions.nosuch<|end|>",
        '<|channel|>commentary to=functions.book_now<|message|>{}<|call|>',
        '<|channel|>analysis to=functions.web.search code<|message|>{"a": 1}<|call|>',
    ):  # fmt: skip
        assert allowed(text, tools=TOOLS), text
    for text in (
        "Hello",
        "<|channel|>comments<|message|>",
        "<|channel|>commentary to=functions.nosuch",
        '<|channel|>commentary to=functions.book<|message|>{"city": "Rome"',
        "<|channel|>commentary to=functions.book_now<|message|>{}",
        f"{ANALYSIS}Hm<|start|>",
        "<|channel|>commentary to=python<|message|>1<|call|>",
    ):
        assert not allowed(text, tools=TOOLS), text
    assert allowed("<|channel|>analysis to=python code<|message|>1 + [<|call|>", tools=[*TOOLS, CODE])
    assert not allowed("<|channel|>final<|message|>Hello", end=False, tools=TOOLS, must_call=True)
    assert not allowed("<|channel|>commentary to=functions.book", end=False, final=Grammar.any_json(), tools=TOOLS)


def test_names_that_no_header_can_hold() -> None:
    odd = {"type": "function", "function": {"name": "two words", "strict": True}}
    assert allowed("<|channel|>final<|message|>Hello", tools=[odd])
    with pytest.raises(GrammarError, match="expected names without white space"):
        ChannelConstraint(TAGGED, [odd], must_call=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("given", [
    {"response_format": {"type": "json_object", "schema": FORMAT}},
    {"tools": TOOLS[1:2], "tool_choice": {"type": "function", "function": {"name": "book_now"}}},
    {"tools": TOOLS[1:2]},
])  # fmt: skip
def test_a_conversation_held_in_channels(llama: Callable[..., Any], given: dict[str, Any], stream: bool) -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant"
    )
    ending = "<|channel|>final<|message|>" + '{"n": 4}' if "response_format" in given else (
        "<|channel|>commentary to=functions.book_now <|constrain|>json<|message|>{}<|call|>"
    )  # fmt: skip
    model = llama(f"{ANALYSIS}Hm<|end|><|start|>assistant{ending}", template)
    found = model.create_chat_completion([{"role": "user", "content": "Hi"}], stream=stream, max_tokens=400, **given)
    if stream:
        deltas = [chunk["choices"][0]["delta"] for chunk in found]
        message: dict[str, Any] = {
            key: "".join(delta.get(key) or "" for delta in deltas) for key in ("content", "reasoning_content")
        }
        message["tool_calls"] = [call for delta in deltas for call in delta.get("tool_calls") or ()]
    else:
        message = found["choices"][0]["message"]
    assert message["reasoning_content"] == "Hm"
    if "response_format" in given:
        assert json.loads(message["content"]) == {"n": 4}
    else:
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["book_now"]
