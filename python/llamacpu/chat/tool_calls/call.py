"""A tool call, and how the values of its arguments are read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llamacpu.chat import pythonic
from llamacpu.chat.brackets import too_deep

__all__ = [
    "DECODER",
    "DEEPEST",
    "LONGEST",
    "Call",
    "IdentifiedCall",
    "is_text",
    "properties_of",
    "read_arguments",
    "refused",
    "typed",
]

# Longer texts, in characters, and deeper nesting are not tool calls.
LONGEST = 256 << 10
DEEPEST = 64
# Schemas nested deeper than this are not examined for the type of a value.
_DEEPEST_CHOICE = 8
_ID = re.compile(r"[A-Za-z0-9]{9}")


class Call(NamedTuple):
    """The name of a function and the arguments of its call."""

    name: str
    arguments: dict[str, Any]


class IdentifiedCall(Call):
    """A call to which the model gave an id of nine letters and digits."""

    id: str

    @classmethod
    def of(cls, call: Call, given: Any) -> Call:
        """The call with the given id, or unchanged if the id is not valid."""
        if not isinstance(given, str) or not _ID.fullmatch(given):
            return call
        found = cls(*call)
        found.id = given
        return found


def _reject(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


DECODER = json.JSONDecoder(parse_constant=_reject, parse_float=pythonic.finite, strict=False)
"""A JSON decoder that accepts line breaks in strings, rejects NaN and infinity, and clamps numbers that overflow."""


def refused(text: str, python: bool = False) -> bool:
    """Whether a text is too long or too deeply nested for a call."""
    return len(text) > LONGEST or too_deep(text, DEEPEST, python)


def read_arguments(text: str) -> dict[str, Any] | None:
    """Parse an object of arguments from JSON text; empty text and null mean no arguments."""
    if refused(text):
        return None
    try:
        value = DECODER.decode(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def properties_of(schemas: Mapping[str, Any] | None, name: str) -> Mapping[str, Any]:
    """The schemas of a function's arguments by name; empty if they are unknown."""
    schema = (schemas or {}).get(name)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def is_text(schema: Any) -> bool:
    """Whether the schema allows only strings."""
    if not isinstance(schema, Mapping):
        return False
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list) and choices:
        return all(isinstance(choice, str) for choice in choices)
    return schema.get("type") == "string"


def typed(text: str, schema: Any) -> Any:
    """The value of an argument that is written as it is: strings without quotation marks, anything else as JSON.

    A text that is valid JSON remains text if the schema has strings and no such value: `5` for a string or null.
    """
    if is_text(schema) or refused(text):
        return text
    try:
        value = DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return text
    types = _types(schema)
    return text if types is not None and "string" in types and _type(value) not in types else value


def _types(schema: Any, depth: int = 0) -> frozenset[str] | None:
    """The JSON types that a schema allows, or None if they are unknown; "number" includes "integer"."""
    if not isinstance(schema, Mapping) or depth > _DEEPEST_CHOICE:
        return None
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list):
        return frozenset(map(_type, choices))
    given = schema.get("type")
    if isinstance(given, str):
        given = [given]
    if isinstance(given, list):
        names = {name for name in given if isinstance(name, str)}
        return frozenset(names | {"integer"} if "number" in names else names)
    found: set[str] = set()
    for option in schema.get("anyOf") or schema.get("oneOf") or [None]:
        types = _types(option, depth + 1)
        if types is None:
            return None
        found |= types
    return frozenset(found)


def _type(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array"}
    return names.get(type(value), "object")
