"""JSON schemas: as pydantic makes them, with keywords that the compiler lacks, and wrong ones."""

from __future__ import annotations

import datetime
import enum
import json
import logging
import random
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

from llamacpu.constraints.grammar import Grammar
from llamacpu.errors import GrammarError
from test_grammar import write
from thorough import THOROUGH

pytest.importorskip("llguidance", reason="llguidance is not installed")
jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
pydantic = pytest.importorskip("pydantic", reason="pydantic is not installed")


class Color(enum.Enum):
    RED = "red"
    GREEN = "grün"
    ONE = 1


def random_type(chance: random.Random, depth: int) -> Any:
    field = pydantic.Field
    leaves: list[Callable[[], Any]] = [
        lambda: int, lambda: bool, lambda: Color, lambda: type(None),
        lambda: Annotated[str, field(max_length=6)],
        lambda: Annotated[str, field(pattern=r"^[a-z]{1,4}\d?$")],
        lambda: Annotated[int, field(ge=-3, lt=50)],
        lambda: Annotated[float, field(gt=0, le=2)],
        lambda: Literal["a", "b", 3], lambda: datetime.date, lambda: uuid.UUID,
        lambda: set[Literal["x", "y", "z"]],
    ]  # fmt: skip
    if depth == 0:
        return chance.choice(leaves)()

    def inner() -> Any:
        return random_type(chance, depth - 1)

    branches: list[Callable[[], Any]] = [
        lambda: inner() | None,
        lambda: Annotated[list[inner()], field(max_length=2)],  # type: ignore[misc]
        lambda: tuple[inner(), inner()],
        lambda: Annotated[dict[Annotated[str, field(max_length=3)], inner()], field(max_length=2)],  # type: ignore[misc]
        lambda: dict[Literal["left", "right"], inner()],
        lambda: random_model(chance, depth - 1),
        lambda: random_model(chance, depth - 1) | random_model(chance, depth - 1),
        lambda: tagged(chance, depth - 1),
    ]
    return chance.choice(branches + leaves[:3])()


def random_model(chance: random.Random, depth: int) -> Any:
    names = chance.sample(["name", "enum", "required", "properties", "größe", "a b", "anyOf", "type", "const"], 3)
    fields: dict[str, Any] = {}
    for number, name in enumerate(names):
        default = ... if chance.random() < 0.6 else None
        fields[f"field_{number}"] = (random_type(chance, depth), pydantic.Field(default, alias=name))
    config = pydantic.ConfigDict(extra=chance.choice(["ignore", "forbid"]), populate_by_name=True)
    return pydantic.create_model(f"Model{chance.randrange(10**9)}", __config__=config, **fields)


def tagged(chance: random.Random, depth: int) -> Any:
    kinds = [
        pydantic.create_model(
            f"Kind{name}{chance.randrange(10**9)}", kind=(Literal[name], ...), value=(random_type(chance, 0), ...)
        )
        for name in ("cat", "dog")
    ]  # fmt: skip
    return Annotated[kinds[0] | kinds[1], pydantic.Field(discriminator="kind")]


@pytest.mark.parametrize("seed", range(200 if THOROUGH else 70))
def test_schemas_as_pydantic_makes_them(seed: int) -> None:
    model = random_model(random.Random(seed), 2)
    schema = model.model_json_schema(by_alias=True)
    text = write(Grammar.json_schema(schema), seed)
    jsonschema.validate(json.loads(text), schema)
    model.model_validate_json(text)


class Node(pydantic.BaseModel):  # type: ignore[misc,name-defined]
    value: int
    children: list[Node] = pydantic.Field(max_length=2)
    parent: Node | None = None


def test_recursive_models() -> None:
    for seed in range(10):
        Node.model_validate_json(write(Grammar.json_schema(Node.model_json_schema()), seed))


@pytest.mark.parametrize("name", ["Größe", "日本", "a b", "List[int]", "a<b>", 'a"b', "x^y", "a/b", "~1", "a%b", ""])
def test_names_that_no_uri_holds(name: str) -> None:
    """References as many programs write them, without escaping what RFC 3986 wants escaped."""
    plain = name.replace("~", "~0").replace("/", "~1")
    there = {"type": "array", "items": {"$ref": f"#/$defs/{plain}"}, "maxItems": 1}
    for schema in (
        {"$defs": {name: there}, "$ref": f"#/$defs/{plain}"},
        {
            "$defs": {name: {"type": "object", "properties": {"a": {"const": 1}}}},
            "allOf": [{"$ref": f"#/$defs/{plain}"}],
        },
    ):
        for seed in range(3):
            jsonschema.validate(json.loads(write(Grammar.json_schema(schema), seed)), schema)


OBJECT = {"type": "object"}
AB = {"a": {"type": "integer"}, "b": {"type": "boolean"}}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/$defs/x", "$defs": {"x": {**OBJECT, "properties": {"next": {"$ref": "#"}}, "maxProperties": 1}}},
        {**OBJECT, "properties": {"a": {"$ref": "#/$defs/x%20y"}}, "required": ["a"], "$defs": {"x y": {"const": 1}}},
        {**OBJECT, "properties": {"a": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {**OBJECT, "allOf": [{"properties": {"a": {"type": "integer"}}, "required": ["a"]},
                             {"properties": {"b": {"type": "boolean"}}, "required": ["b"]}], "maxProperties": 2},
        {"allOf": [{"$ref": "#/$defs/p"}, {"required": ["z"], "properties": {"z": {"const": 2}}}], "maxProperties": 2,
         "$defs": {"p": {**OBJECT, "properties": {"a": {"const": 1}}, "required": ["a"]}}},
        {"$ref": "#/$defs/p", "required": ["z"], "properties": {"z": {"const": 2}}, "maxProperties": 2,
         "$defs": {"p": {**OBJECT, "properties": {"a": {"const": 1}}, "required": ["a"]}}},
        {**OBJECT, "properties": {"a": {"const": 1}}, "required": ["a", "z"], "maxProperties": 2},
        {**OBJECT, "properties": {"enum": {**OBJECT, "properties": {"a": {"const": 1}}, "required": ["a"]}},
         "required": ["enum"]},
        {"type": "string", "format": "a format of my own", "maxLength": 3},
        {"type": "string", "format": "iri-reference", "maxLength": 3},
        {"type": "array", "items": {"enum": ["a", "b", "c"]}, "uniqueItems": True, "minItems": 2},
        {"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 1},
        {"type": "array", "items": {"const": 1}, "uniqueItems": False, "maxItems": 3},
        {**OBJECT, "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
        {**OBJECT, "propertyNames": {"pattern": "^[xy]{2}$"}, "additionalProperties": {"const": 1}, "maxProperties": 3},
        {**OBJECT, "propertyNames": {"maxLength": 2}, "additionalProperties": {"const": 1}, "maxProperties": 3},
        {**OBJECT, "propertyNames": {"type": "string"}, "additionalProperties": {"const": 1}, "maxProperties": 1},
        {"not": {"type": ["object", "array", "string"]}},
        {"enum": [1, True, "x", None], "not": {"enum": [1, None]}},
        {**OBJECT, "properties": AB, "not": {"required": ["a"]}},
        {**OBJECT, "properties": AB, "dependentRequired": {"a": ["b"]}},
        {**OBJECT, "properties": AB, "required": ["a"], "dependentRequired": {"a": ["b"]}},
        {**OBJECT, "properties": AB, "dependencies": {"b": ["a"], "a": ["b"]}},
        {**OBJECT, "properties": AB, "unevaluatedProperties": False},
        {"type": "array", "prefixItems": [{"const": 1}], "unevaluatedItems": False},
        {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "maximum": 5, "exclusiveMaximum": True},
        {**OBJECT, "properties": {"k": {"enum": ["a", "b", "c"]}, "n": {"type": "integer"}}, "required": ["k"],
         "if": {"properties": {"k": {"const": "a"}}}, "then": {"required": ["n"]},
         "else": {"properties": {"n": {"minimum": 5}}}},
        {**OBJECT, "properties": {"k": {"type": "boolean"}, "n": {"type": "integer"}},
         "if": {"properties": {"k": {"const": True}}, "required": ["k"]}, "then": {"required": ["n"]}},
        {**OBJECT, "properties": AB, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
        {**OBJECT, "properties": AB, "required": ["a"], "if": {"required": ["b"]},
         "else": {"properties": {"a": {"const": 2}}}},
        {"then": {"type": "string"}, "type": "integer"},
        {"type": "array", "items": {"enum": [1, 2]}, "contains": {"const": 2}, "maxItems": 3},
        {"type": "array", "items": {"enum": [1, 2]}, "contains": {"const": 2}, "maxItems": 4, "minItems": 3},
        {"type": "array", "items": {"enum": [1, 2]}, "contains": {"const": 2}, "minContains": 0, "maxItems": 3},
        {**OBJECT, "properties": AB, "dependentSchemas": {"a": {"required": ["b"]}}},
        {**OBJECT, "properties": AB, "dependentSchemas": {"a": {"properties": {"c": {"const": 1}}, "required": ["c"]},
                                                          "c": {"required": ["b"]}}},
        {**OBJECT, "properties": AB, "dependencies": {"a": {"required": ["b"]}}},
        {**OBJECT, "properties": AB, "not": {"required": ["a", "b"]}},
        {**OBJECT, "properties": AB, "required": ["a"], "not": {"required": ["a", "b"]}},
        {"not": {"anyOf": [{"type": "object"}, {"type": "array"}, {"type": "string"}]}},
        {**OBJECT, "properties": AB, "oneOf": [{"required": ["a"]}, {"required": ["b"]}]},
        {**OBJECT, "allOf": [{"properties": AB}], "properties": {"c": {"const": 1}}, "unevaluatedProperties": False},
        {"$ref": "#/$defs/x", "properties": {"c": {"const": 1}}, "unevaluatedProperties": False, "type": "object",
         "$defs": {"x": {**OBJECT, "properties": AB, "required": ["a"]}}},
        {"type": "array", "contains": {"enum": [1, 2]}, "unevaluatedItems": False, "minContains": 2, "maxContains": 3},
        {"oneOf": [{"enum": ["a", "b", 1]}, {"enum": ["b", "c", True]}, {"const": 1}]},
        {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 3},
                   {"type": "number", "exclusiveMinimum": 3, "maximum": 5}]},
        {"type": "boolean", "not": {"const": True}},
        {"const": 1, "not": {"enum": [True, 2]}},
        {**OBJECT, "required": ["a", "b"], "additionalProperties": {"const": 1}, "minProperties": 3,
         "maxProperties": 3},
        {**OBJECT, "additionalProperties": {"const": 1}, "minProperties": 1, "maxProperties": 1},
        {"type": "array", "items": {"type": "boolean"}, "uniqueItems": True, "minItems": 1},
        {"type": "array", "prefixItems": [{"const": 1}, {"const": True}], "items": False, "uniqueItems": True},
        {**OBJECT, "properties": {"value": {"type": "integer"}, "next": {"$recursiveRef": "#"}}},
        True,
    ],
    ids=lambda schema: json.dumps(schema)[:70],
)  # fmt: skip
def test_what_is_kept_is_exact(schema: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "llamacpu"):
        grammar = Grammar.json_schema(schema, strict=True)
    assert not caplog.records
    draft = jsonschema.Draft7Validator if isinstance(schema, dict) and "dependencies" in schema else None
    if isinstance(schema, dict) and schema.get("exclusiveMinimum") is True:
        draft = jsonschema.Draft4Validator
    texts = {write(grammar, seed) for seed in range(12)}
    for text in texts:
        jsonschema.validate(json.loads(text), schema, cls=draft)


def test_a_combined_object_may_have_what_the_other_schema_names() -> None:
    more = {"required": ["b"], "properties": {"b": {"const": 2}}}
    schema = {**OBJECT, "properties": {"a": {"const": 1}}, "required": ["a"], "anyOf": [more], "maxProperties": 2}
    for seed in range(5):
        assert json.loads(write(Grammar.json_schema(schema), seed)) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("schema", "keyword", "path"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True, "maxItems": 3}, "uniqueItems", "#"),
        ({"type": "array", "contains": {"const": 1}, "items": {"const": 1}, "maxItems": 20}, "contains", "#"),
        ({**OBJECT, "allOf": [{"properties": AB}], "maxProperties": 1}, "maxProperties", "#"),
        ({"properties": {"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}}, "oneOf", "#/properties/a"),
        ({"oneOf": [{"type": "number", "maximum": 3}, {"type": "number", "minimum": 3}]}, "oneOf", "#"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}], "oneOf": [{"type": "integer"}, {"type": "number"}]},
         "oneOf", "#"),
        ({"type": "string", "maxLength": 3, "not": {"pattern": "^a"}}, "not", "#"),
        ({**OBJECT, "additionalProperties": {"const": 1}, "minProperties": 2}, "minProperties", "#"),
        ({**OBJECT, "patternProperties": {"^x.$": {"const": 1}}, "additionalProperties": False, "minProperties": 2},
         "minProperties", "#"),
        ({**OBJECT, "required": ["a"], "additionalProperties": {"const": 1}, "minProperties": 3}, "minProperties", "#"),
        ({**OBJECT, "properties": {"a": {"const": 1}}, "additionalProperties": {"const": 1}, "minProperties": 3},
         "minProperties", "#"),
        ({"allOf": [{**OBJECT, "additionalProperties": {"const": 1}}, {"minProperties": 2}]}, "minProperties",
         "#/allOf/1"),
        ({"type": "array", "contains": {"const": 1}, "items": {"const": 1}, "maxContains": 1, "maxItems": 3},
         "contains", "#"),
        ({"type": "array", "contains": {"const": 1}, "prefixItems": [{"const": 1}], "unevaluatedItems": False,
          "maxItems": 3, "items": {"const": 1}, "minContains": 0}, "unevaluatedItems", "#"),
        ({**OBJECT, "anyOf": [{"properties": AB, "required": ["a"]}], "unevaluatedProperties": False},
         "unevaluatedProperties", "#"),
        ({**OBJECT, "propertyNames": {"pattern": "^[a-z]+$", "maxLength": 3}, "additionalProperties": {"const": 1}},
         "propertyNames", "#"),
        ({**OBJECT, "propertyNames": {"anyOf": [{"const": "a"}]}, "additionalProperties": {"const": 1}},
         "propertyNames", "#"),
        ({**OBJECT, "properties": AB, "propertyNames": {"maxLength": 1}}, "propertyNames", "#"),
        ({"$defs": {"x": {"not": {"pattern": "a"}, "type": "boolean"}}, "$ref": "#/$defs/x"}, "not", "#/$defs/x"),
        ({"if": {"type": "string"}, "then": {"const": "a"}, "type": "boolean"}, "if", "#"),
        ({**OBJECT, "properties": AB, "dependentSchemas": {"a": {"minProperties": 2}}}, "dependentSchemas", "#"),
        ({**OBJECT, "allOf": [{"properties": AB, "additionalProperties": False}], "unevaluatedProperties": False},
         "unevaluatedProperties", "#"),
        ({"prefixItems": [{"$dynamicRef": "#node"}], "type": "array", "maxItems": 1}, "$dynamicRef", "#/prefixItems/0"),
    ],
)  # fmt: skip
def test_what_is_not_kept_is_told(
    schema: dict[str, Any], keyword: str, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "llamacpu"):
        write(Grammar.json_schema(schema), 0)
    assert len(caplog.records) == 1
    assert f"keyword {keyword!r} at {path} " in caplog.text
    with pytest.raises(GrammarError, match="cannot be enforced") as caught:
        Grammar.json_schema(schema, strict=True)
    assert f"keyword {keyword!r} at {path} " in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({**OBJECT, "properties": {"a b": {"type": "string", "pattern": "(?=x)y"}}},
         ["#/properties/a%20b/pattern", "(?=x)y", "look-around"]),
        ({"type": "array", "items": {"type": "string", "pattern": "[a-"}}, ["#/items/pattern", '"[a-"', "unclosed"]),
        ({**OBJECT, "properties": {"a": {"$ref": "#/$defs/none"}}}, ["#/properties/a", "#/$defs/none", "not exist"]),
        ({**OBJECT, "properties": {"a": {"not": {}}}, "required": ["a"]}, ["#/properties/a", "Unsatisfiable"]),
        ({"anyOf": [{"const": 1}, {"type": "text"}]}, ["#/anyOf/1", "Invalid type: text"]),
        ({"$ref": "https://example.org/schema"}, ["https://example.org/schema"]),
        ({**OBJECT, "properties": {"a": {"type": "string", "minLength": 5, "maxLength": 2}}, "required": ["a"]},
         ["#/properties/a", "minLength"]),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_value(schema: dict[str, Any], told: list[str]) -> None:
    with pytest.raises(GrammarError) as caught:
        Grammar.json_schema(schema)
    for part in told:
        assert part in str(caught.value), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "line 1, column 1"), ('{"type":', "line 1, column 9"), ('{\n"a" 1}', "line 2, column 5")],
)
def test_text_that_is_no_json_is_told_in_words(text: str, told: str) -> None:
    with pytest.raises(GrammarError, match=f"not JSON: .*{told}; expected an object") as caught:
        Grammar.json_schema(text)
    assert "Expecting" not in str(caught.value)
