"""Structured output: whatever the model wants to say, the text is one of the grammar's."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fake_llama import Tokens, llama
from fake_model import END, FIRST_BYTE, START, VOCABULARY, ids_of
from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import GrammarError
from llamacpu.llama import Llama
from thorough import examples

pytest.importorskip("llguidance", reason="llguidance is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

__all__ = ["llama"]
TOKENS = Tokens()
# A model with random wishes that likes to come to an end.
LIKES = np.zeros(VOCABULARY, dtype=np.float32)
LIKES[ids_of('"]}')] = 3
LIKES[ids_of(" \n\\")] = -3
LIKES[END] = 5


def write(grammar: Grammar, seed: int, limit: int = 3000) -> str:
    """A text that a model of random wishes writes under the grammar."""
    chance = np.random.default_rng(seed)
    constraint = grammar.constraint(TOKENS)  # type: ignore[arg-type]
    ids = [START]
    while len(ids) < limit:
        wishes = (chance.normal(size=VOCABULARY) + LIKES).astype(np.float32)
        token = int(constraint(np.array(ids), wishes).argmax())
        assert wishes[token] > -np.inf
        if token == END:
            assert constraint.complete
            return TOKENS.decode(ids)
        ids.append(token)
    raise AssertionError(f"no end: {TOKENS.decode(ids)[:200]}")


names = st.text("abé_", min_size=1, max_size=4)
leaf_schemas = st.one_of(
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": "integer"}, {"type": "number"}]),
    st.just({"type": "string", "maxLength": 8}),
    st.sampled_from([{"type": "string", "pattern": "^[a-z]{2,5}$"}, {"type": "string", "format": "date"}]),
    st.lists(st.sampled_from(["red", "grün", "蓝", 1, None, True]), min_size=1, max_size=4, unique_by=repr).map(
        lambda values: {"enum": values}
    ),
    st.builds(lambda low: {"type": "integer", "minimum": low, "maximum": low + 100}, st.integers(-50, 1000)),
    st.just({"const": {"a": [1, "x"]}}),
    st.just({"$ref": "#/$defs/node"}),
)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(properties), "additionalProperties": False}


schemas = st.recursive(
    leaf_schemas,
    lambda inner: st.one_of(
        st.dictionaries(names, inner, max_size=3).map(_object),
        st.builds(
            lambda items, least: {"type": "array", "items": items, "minItems": least, "maxItems": least + 2},
            inner,
            st.integers(0, 2),
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda forms: {"anyOf": forms}),
    ),
    max_leaves=6,
)
DEFINITIONS = {"node": {"type": "object", "properties": {"value": {"type": "integer"}}, "required": ["value"],
                        "additionalProperties": False}}  # fmt: skip


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(schemas, st.integers(0, 2**32))
def test_every_text_is_valid_under_its_schema(schema: dict[str, Any], seed: int) -> None:
    schema = {**schema, "$defs": DEFINITIONS}
    value = json.loads(write(Grammar.json_schema(schema), seed))
    jsonschema.validate(value, schema)


@pytest.mark.parametrize("seed", range(5))
def test_other_grammars(seed: int) -> None:
    assert isinstance(json.loads(write(Grammar.any_json(), seed)), dict)
    assert re.fullmatch(r"\d{3}-[a-z]{1,9}", write(Grammar.regex(r"[0-9]{3}-[a-z]{1,9}"), seed))
    assert re.fullmatch(
        r"yes|no \d{2}", write(Grammar.gbnf('root ::= "yes" | "no " digit digit\ndigit ::= [0-9]'), seed)
    )
    assert re.fullmatch(r"a(xx?)?\d", write(Grammar.lark('start: "a" tail\ntail: /[0-9]/ | "x" /x?[0-9]/'), seed))
    assert write(Grammar.from_string('root ::= "héé"'), seed) == "héé"
    assert type(json.loads(write(Grammar.from_json_schema('{"type": "integer"}'), seed))) is int


DEEP: dict[str, Any] = {}
for _ in range(300):
    DEEP = {"type": "array", "items": DEEP}


@pytest.mark.parametrize(
    "make",
    [
        lambda: Grammar.json_schema({"type": "nosuch"}),
        lambda: Grammar.json_schema("{"),
        lambda: Grammar.json_schema(5),  # type: ignore[arg-type]
        lambda: Grammar.json_schema({"type": {1, 2}}),
        lambda: Grammar.json_schema(DEEP),
        lambda: Grammar.json_schema("[" * 100_000),
        lambda: Grammar.json_schema({"$ref": "#/nosuch"}),
        lambda: Grammar.json_schema({"$ref": "http://example.invalid/x"}),
        lambda: Grammar.json_schema({"type": "string", "pattern": "(?=a)b"}),
        lambda: Grammar.json_schema({"anyOf": []}),
        lambda: Grammar.json_schema({"allOf": [{"type": "string"}, {"type": "integer"}]}),
        lambda: Grammar.regex("("),
        lambda: Grammar.regex("(" * 60_000 + ")" * 60_000),
        lambda: Grammar.regex("a" * 2_000_000),
        lambda: write(Grammar.regex("(a{1000}){1000}{1000}"), 0),
        lambda: Grammar.gbnf('root ::= "'),
        lambda: Grammar.gbnf("root ::= nosuch"),
        lambda: Grammar.gbnf(""),
        lambda: Grammar.gbnf("root ::= " + "(" * 60_000 + '"a"' + ")" * 60_000),
        lambda: Grammar.lark("start: x"),
        lambda: Grammar.lark(""),
        lambda: Grammar.lark(None),  # type: ignore[arg-type]
        lambda: Grammar.lark('start: "\ud800"'),
        lambda: Grammar.gbnf('root ::= "a" # \ud800'),
        lambda: Grammar.regex("a\ud800"),
        lambda: Grammar.json_schema({"const": "\ud800"}),
    ],
)
def test_what_cannot_be_used_is_an_error(make: Callable[[], object]) -> None:
    with pytest.raises(GrammarError):
        make()


@pytest.mark.parametrize("lark", ['start: /a+/ "ab"', 'start: A "ab"\nA: "a"*', 'start: x "ab"\nx: /a+/'])
def test_what_must_come_next_without_end_does_not_hang(lark: str) -> None:
    constraint = Grammar.lark(lark).constraint(TOKENS)
    logits = constraint(np.array([START]), np.zeros(VOCABULARY, dtype=np.float32))
    assert np.flatnonzero(logits > -np.inf).tolist() == ids_of("a")


def test_control_tokens_are_not_text() -> None:
    constraint = Grammar.regex("<s></s>").constraint(TOKENS)  # type: ignore[arg-type]
    allowed = constraint(np.array([START]), np.zeros(VOCABULARY, dtype=np.float32))
    assert np.flatnonzero(allowed > -np.inf).tolist() == [FIRST_BYTE + ord("<")]


def test_a_token_that_the_grammar_forbids_is_an_error() -> None:
    constraint = Grammar.regex("ab").constraint(TOKENS)  # type: ignore[arg-type]
    logits = np.zeros(VOCABULARY, dtype=np.float32)
    constraint(np.array([START]), logits)
    with pytest.raises(GrammarError):
        constraint(np.array([START, *ids_of("x")]), logits)


# --- In Llama ---

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
USER = [{"role": "user", "content": "Hi"}]


def test_completions_follow_a_grammar(llama: Callable[..., Any]) -> None:
    grammar = Grammar.gbnf('root ::= "yes" | "no"')
    assert llama("no, never")("a", grammar=grammar, temperature=0.0)["choices"][0]["text"] == "no"
    assert llama("nothing")("a", grammar=grammar, temperature=0.0)["choices"][0]["text"] == "no"


@pytest.mark.parametrize(
    "wanted",
    [
        {"type": "json_object", "schema": SCHEMA},
        {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}},
    ],
)
def test_answers_follow_a_response_format(llama: Callable[..., Any], wanted: dict[str, Any]) -> None:
    found = llama('{"b": 1}').create_chat_completion(USER, response_format=wanted, max_tokens=40, temperature=0.0)
    assert found["choices"][0]["message"]["content"].startswith('{"a"')
    plain = llama("[1, 2]").create_chat_completion(USER, response_format={"type": "json_object"}, max_tokens=9)
    assert plain["choices"][0]["message"]["content"].startswith("{")


@pytest.mark.parametrize("seed", range(5))
def test_objects_have_the_properties_that_are_named(seed: int) -> None:
    inner = {"type": "object", "properties": {"x": {"type": "null"}}, "required": ["x"]}
    schema = {
        "type": "object",
        "properties": {"a": inner, "properties": {"const": {"properties": {}}}},
        "required": ["a"],
    }
    value = json.loads(write(Grammar.json_schema(schema), seed))
    assert value["a"] == {"x": None}
    assert set(value) <= {"a", "properties"}
    assert value.get("properties", {"properties": {}}) == {"properties": {}}
    jsonschema.validate(value, schema)
    more = {**inner, "additionalProperties": {"type": "integer"}, "minProperties": 2, "maxProperties": 3}
    both = {"allOf": [inner, {"type": "object", "properties": {"y": {"type": "null"}}, "required": ["y"]}]}
    for other in (more, both):
        value = json.loads(write(Grammar.json_schema(other), seed))
        jsonschema.validate(value, other)
        assert len(value) >= 2


def test_a_tool_can_be_required(llama: Callable[..., Any]) -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": SCHEMA}}
    for choice in ("required", {"type": "function", "function": {"name": "add"}}):
        text = '{"name": "add", "parameters": {"a": 12}}, and then'
        found = llama(text).create_chat_completion(USER, tools=[tool], tool_choice=choice, temperature=0.0)
        (call,) = found["choices"][0]["message"]["tool_calls"]
        assert call["function"] == {"name": "add", "arguments": '{"a": 12}'}


def test_the_demo_model_fills_in_forms() -> None:
    demo = Path(str(resources.files("llamacpu"))) / "data" / "demo.gguf"
    if not demo.is_file():
        pytest.skip("this checkout has no demo model")
    choose = random.Random(7)
    complete = 0
    with Llama(demo, n_ctx=0) as found:
        for seed in range(40):
            schema = _form(choose)
            answer = found.create_chat_completion(
                USER,
                response_format={"type": "json_object", "schema": schema},
                temperature=1.5,
                max_tokens=300,
                seed=seed,
            )["choices"][0]
            if answer["finish_reason"] == "stop":
                complete += 1
                jsonschema.validate(json.loads(answer["message"]["content"]), schema)
            else:
                assert answer["finish_reason"] == "length"
    assert complete >= 20  # the model may ramble in a string, but not mostly


def _form(choose: random.Random, depth: int = 0) -> dict[str, Any]:
    simple: list[dict[str, Any]] = [
        {"type": "integer"},
        {"type": "boolean"},
        {"enum": ["red", "grün", "蓝", 1, None]},
        {"type": "string", "pattern": "^[a-z]{2,5}$"},
        {"type": "string", "maxLength": 12},
    ]
    kind = choose.choice(["simple", "object", "array", "any"] if depth < 2 else ["simple"])
    if kind == "object":
        return _object({name: _form(choose, depth + 1) for name in choose.sample(["name", "é", "x y"], 2)})
    if kind == "array":
        return {"type": "array", "items": _form(choose, depth + 1), "maxItems": 3}
    if kind == "any":
        return {"anyOf": [_form(choose, depth + 1), _form(choose, depth + 1)]}
    return choose.choice(simple)
