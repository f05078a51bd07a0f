"""The demo model fills in generated forms at a temperature at which it talks nonsense: every answer is valid."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from llamacpu.llama import Llama
from thorough import THOROUGH

pytest.importorskip("llguidance", reason="llguidance is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")

FORMS = 200
FILLED_IN = FORMS if THOROUGH else 64
# Every form ends by itself: lists and texts have a longest, and a form that contains itself ends below two levels.
MOST_TOKENS = 1000
USER = [{"role": "user", "content": "Tell me about yourself."}]
NAMES = ["name", "größe", "名前", "x y", 'a "b"', "emoji 🙂", "back\\slash", "ключ"]
LEAVES: list[dict[str, Any]] = [
    {"type": "boolean"},
    {"type": "null"},
    {"type": "integer", "minimum": -20, "maximum": 300},
    {"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25},
    {"enum": ["red", "grün", "蓝", 1, 2.5, None, True, ["a", {"b": []}]]},
    {"const": {"a": [1, "é"]}},
    {"type": "string", "maxLength": 12},
    {"type": "string", "minLength": 2, "maxLength": 4},
    {"type": "string", "pattern": "^[a-z]{2,5}-[0-9]{3}$"},
    {"type": "string", "pattern": "^(été|夏|summer)( [0-9]{4})?$"},
    {"type": "string", "format": "date"},
    {"$ref": "#/$defs/point"},
    {"$ref": "#/$defs/tree"},
]
DEFINITIONS = {
    "point": {
        "type": "object",
        "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "y": {"$ref": "#/$defs/unit"}},
        "required": ["x", "y"],
        "additionalProperties": False,
    },
    "unit": {"enum": ["cm", "m", "км"]},
    "tree": {"anyOf": [{"$ref": "#/$defs/unit"}, {"$ref": "#/$defs/branch"}]},
    "branch": {"type": "array", "items": {"$ref": "#/$defs/unit"}, "minItems": 1, "maxItems": 2},
}


def form(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema of any kind, at most three levels deep."""
    kind = chance.choice(["leaf", "object", "object", "array", "any"] if depth < 3 else ["leaf"])
    if kind == "object":
        properties = {name: form(chance, depth + 1) for name in chance.sample(NAMES, chance.randrange(1, 4))}
        required = [name for name in properties if chance.random() < 0.7]
        return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    if kind == "array":
        least = chance.randrange(2)
        return {"type": "array", "items": form(chance, depth + 1), "minItems": least, "maxItems": least + 1}
    if kind == "any":
        return {"anyOf": [form(chance, depth + 1) for _ in range(chance.randrange(2, 4))]}
    return dict(chance.choice(LEAVES))


@pytest.fixture(scope="module")
def demo() -> Iterator[Llama]:
    with Llama(Path(str(resources.files("llamacpu"))) / "data" / "demo.gguf", n_ctx=4 * MOST_TOKENS) as found:
        yield found


def fill_in(demo: Llama, schema: dict[str, Any], seed: int, max_tokens: int) -> dict[str, Any]:
    found = demo.create_chat_completion(
        USER,
        response_format={"type": "json_schema", "json_schema": {"name": "form", "schema": schema}},
        temperature=1.5,
        top_k=0,
        top_p=1.0,
        min_p=0.0,
        max_tokens=max_tokens,
        seed=seed,
    )
    choice: dict[str, Any] = found["choices"][0]
    return choice


@pytest.mark.parametrize("part", range(8))
def test_forms_are_filled_in_validly(demo: Llama, part: int) -> None:
    for number in range(part, FILLED_IN, 8):
        chance = random.Random(number)
        schema = {**form(chance), "$defs": DEFINITIONS}
        answer = fill_in(demo, schema, number, MOST_TOKENS)
        assert answer["finish_reason"] == "stop", (schema, answer)
        jsonschema.validate(json.loads(answer["message"]["content"]), schema)


def test_an_answer_that_was_cut_off_says_so(demo: Llama) -> None:
    schema = {"type": "array", "items": {"type": "string", "minLength": 5}, "minItems": 50}
    for seed in range(5):
        answer = fill_in(demo, schema, seed, 20)
        assert answer["finish_reason"] == "length"
        with pytest.raises(json.JSONDecodeError):
            json.loads(answer["message"]["content"])


def test_a_form_that_contains_itself(demo: Llama) -> None:
    list_of = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}
    reasons = set()
    for seed in range(10):
        answer = fill_in(demo, list_of, seed, 60)
        reasons.add(answer["finish_reason"])
        if answer["finish_reason"] == "stop":
            jsonschema.validate(json.loads(answer["message"]["content"]), list_of)
    assert reasons <= {"stop", "length"}
    assert "stop" in reasons


def test_the_forms_are_of_every_kind() -> None:
    every = json.dumps([form(random.Random(number)) for number in range(FORMS)], ensure_ascii=False)
    for word in ("anyOf", "$ref", "pattern", "enum", "const", "items", "properties", "format", "multipleOf", "名前"):
        assert every.count(f'"{word}"') > 5, word
