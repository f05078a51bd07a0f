"""Strict tools of a chat: schemas, references, names, and what cannot be enforced."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from fake_llama import Tokens, llama
from llamacpu.answers.tools import grammar_of_format, grammar_of_tools
from llamacpu.constraints.tool_constraint import ToolCallConstraint
from llamacpu.errors import GrammarError
from test_grammar import write as write_under
from test_tool_constraint import BOOK, SWITCH, allowed

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

__all__ = ["llama"]

USER = [{"role": "user", "content": "Hi"}]


def test_strict_tools_of_a_chat(llama: Callable[..., Any]) -> None:
    tools = [{"type": "function", "function": {"name": "switch", "strict": True, "parameters": SWITCH}}]
    wish = '{"name": "switch", "parameters": {"on": "yes"}}'
    for choice in (None, "auto"):
        found = llama(wish).create_chat_completion(USER, tools=tools, tool_choice=choice, temperature=0.0)
        (call,) = found["choices"][0]["message"]["tool_calls"]
        jsonschema.validate(json.loads(call["function"]["arguments"]), SWITCH)
        assert found["choices"][0]["finish_reason"] == "tool_calls"
    free = llama("Hello [there]").create_chat_completion(USER, tools=tools, temperature=0.0)
    assert free["choices"][0]["message"]["content"] == "Hello [there]"
    cut = llama(wish).create_chat_completion(USER, tools=tools, temperature=0.0, max_tokens=30)
    assert cut["choices"][0]["finish_reason"] == "length"


def test_tools_that_are_not_strict_leave_the_model_alone(llama: Callable[..., Any]) -> None:
    tools = [{"type": "function", "function": {"name": "book", "parameters": BOOK}}]
    wish = '{"name": "book", "parameters": {"city": "Rome"}}'
    found = llama(wish).create_chat_completion(USER, tools=tools, temperature=0.0)
    (call,) = found["choices"][0]["message"]["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"city": "Rome"}


NODE = {
    "$defs": {"Node": {"type": "object", "properties": {"value": {"const": 1}, "next": {"$ref": "#/$defs/Node"}},
                       "required": ["value"]}},
    "type": "object",
    "properties": {"node": {"$ref": "#/$defs/Node"}, "self": {"$ref": "#"}},
    "required": ["node"],
}  # fmt: skip


@pytest.mark.parametrize("parameters", [NODE, {"$defs": NODE["$defs"], "$ref": "#/$defs/Node"}])
def test_references_resolve_against_the_root_of_the_tool(parameters: dict[str, Any]) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    for only in ("f", None):
        text = write_under(grammar_of_tools([tool, {"type": "function", "function": {"name": "g"}}], only), 3)
        call = json.loads(text)
        if call["name"] == "f":
            jsonschema.validate(call["parameters"], parameters)
    strict = {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}}
    ToolCallConstraint([strict], Tokens())  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["größe", "日本", "a/b", "a b", "a[b]", "%C3", "e\N{COMBINING ACUTE ACCENT}"])
def test_arguments_of_every_name_are_held_to_their_schema(name: str) -> None:
    parameters = {"type": "object", "properties": {name: {"const": 1}}, "required": [name]}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}}
    for value, wanted in ((1, True), (2, False)):
        text = json.dumps({"name": "f", "parameters": {name: value}}, ensure_ascii=False)
        assert allowed(text, tools=[tool]) is wanted


def test_strict_tools_name_what_cannot_be_enforced() -> None:
    parameters = {"type": "object", "properties": {"a": {"type": "array", "contains": {"const": 1}}}}
    strict = {"type": "function", "function": {"name": "f", "parameters": parameters, "strict": True}}
    with pytest.raises(GrammarError, match=r"'contains' at #/properties/a "):
        ToolCallConstraint([strict], Tokens())  # type: ignore[arg-type]
    with pytest.raises(GrammarError, match=r"'contains' at #/properties/a "):
        grammar_of_tools([strict], "f")


def test_a_schema_must_be_there_where_one_is_promised() -> None:
    for named in ({"name": "x"}, {"name": "x", "strict": True}, None, {}):
        with pytest.raises(ValueError, match="no schema"):
            grammar_of_format({"type": "json_schema", "json_schema": named})
    loose = {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}
    assert grammar_of_format({"type": "json_schema", "json_schema": {"schema": loose}}) is not None
    with pytest.raises(GrammarError, match="'uniqueItems' at #"):
        grammar_of_format({"type": "json_schema", "json_schema": {"schema": loose, "strict": True}})
