"""Grammars of calls as Gemma 4 writes them: ``call:f{city:<|"|>Paris<|"|>,days:3}``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llamacpu.chat.tool_calls.gemma import QUOTE
from llamacpu.constraints.compiler import schema_text
from llamacpu.constraints.grammar_texts import closed_text, quoted
from llamacpu.constraints.schema_references import resolved

__all__ = ["GemmaCalls"]

_NAME = re.compile(r"[^\s{}]+")
_KEY = re.compile(r"[^\s:,{}\[\]<\"]+")
_SCALARS = ("integer", "number", "boolean", "null")
_LIMITS = {
    "integer": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "array": ("items", "minItems", "maxItems"),
    "object": ("properties", "required", "additionalProperties"),
}
_CHOICES = frozenset(("anyOf", "oneOf"))
# Keywords that say nothing about the values.
_REMARKS = frozenset(("$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description")) | {
    "contentEncoding",
    "contentMediaType",
    "examples",
    "nullable",
    "readOnly",
    "title",
    "writeOnly",
}
# The largest number of elements that a list is required to have, or limited to.
_MOST_ITEMS = 100
_ANY = (
    "gemma_any: gemma_text | gemma_scalar | gemma_list | gemma_mapping",
    'gemma_scalar: %json {"type": ["number", "boolean", "null"]}',
    'gemma_list: "[" ws (gemma_any (comma gemma_any)*)? ws "]"',
    'gemma_mapping: "{" ws (gemma_pair (comma gemma_pair)*)? ws "}"',
    'gemma_pair: GEMMA_KEY ":" ws gemma_any',
    "GEMMA_KEY: /[\\w.$-]{1,60}/",
)


class _UnableError(Exception):
    """A schema cannot be expressed in this notation."""


class GemmaCalls:
    """Builds the rules of calls; `rules` are those that the expressions use.

    mark: writes a text for a grammar, with the control tokens in it
    """

    def __init__(self, mark: Callable[[str], str]) -> None:
        self._mark = mark
        self._quote = mark(QUOTE)
        self._texts: dict[str, str] = {}
        self._references: dict[tuple[int, str], str] = {}
        self._made = [*_ANY, f"gemma_text: {self._string({})}"]

    @property
    def rules(self) -> list[str]:
        """The rules of the values."""
        return [*self._made, *(f"{name}: {text}" for text, name in self._texts.items())]

    def function(self, number: int, name: str, schema: dict[str, Any]) -> str | None:
        """A call of a function; None if it cannot be written so."""
        if not _NAME.fullmatch(name):
            return None
        try:
            arguments = self._value(schema, number, schema)
        except _UnableError:
            return None
        return f"{self._mark(f'call:{name}')} {arguments}"

    def _rule(self, number: int, body: str) -> str:
        name = f"gemma_{number}_{len(self._made)}"
        self._made.append(f"{name}: {body}")
        return name

    def _value(self, schema: Any, number: int, root: dict[str, Any]) -> str:
        """An expression for the values of a schema in the function of this number."""
        if schema is True or schema == {}:
            return "gemma_any"
        if not isinstance(schema, dict):
            raise _UnableError
        known = {key: value for key, value in schema.items() if key not in _REMARKS}
        if "$ref" in known:
            return self._referred(known, number, root)
        if "enum" in known or "const" in known:
            choices = known.get("enum", [known.get("const")])
            return f"({' | '.join(self._constant(choice) for choice in choices)})"
        if _CHOICES & set(known):
            if len(known) > 1:
                raise _UnableError
            options = known.get("anyOf") or known.get("oneOf") or ()
            return f"({' | '.join(self._value(option, number, root) for option in options)})"
        given = known.pop("type", None)
        types = given if isinstance(given, list) else [given]
        forms = [self._typed(kind, known, number, root) for kind in types]
        unused = set(known) - {key for kind in types for key in _LIMITS.get(kind, ())}
        if unused:
            raise _UnableError
        return f"({' | '.join(forms)})"

    def _referred(self, schema: Mapping[str, Any], number: int, root: dict[str, Any]) -> str:
        reference = schema["$ref"]
        if len(schema) > 1 or not isinstance(reference, str) or not reference.startswith("#"):
            raise _UnableError
        name = self._references.get((number, reference))
        if name is None:
            target = resolved(root, reference)
            if target is None:
                raise _UnableError
            # The name is known before the rule is made: a schema may contain itself.
            name = self._references[number, reference] = f"gemma_{number}_r{len(self._references)}"
            self._made.append(f"{name}: {self._value(target, number, root)}")
        return name

    def _constant(self, value: Any) -> str:
        if isinstance(value, str):
            if QUOTE in value:
                raise _UnableError
            return f"{self._quote} {quoted(value)} {self._quote}" if value else f"{self._quote} {self._quote}"
        if isinstance(value, (dict, list)):
            raise _UnableError
        return quoted(json.dumps(value))

    def _typed(self, kind: Any, schema: Mapping[str, Any], number: int, root: dict[str, Any]) -> str:
        limits = {key: schema[key] for key in _LIMITS.get(kind, ()) if key in schema} if isinstance(kind, str) else {}
        if kind in _SCALARS:
            return self._rule(number, f"%json {schema_text({'type': kind, **limits}, strict=True)}")
        if kind == "string":
            return self._string(limits)
        if kind == "array":
            return self._list(limits, number, root)
        if kind == "object":
            return self._mapping(limits, number, root)
        raise _UnableError

    def _string(self, schema: Mapping[str, Any]) -> str:
        found = closed_text(schema, QUOTE, mark=self._mark)
        if found is None:
            raise _UnableError
        text, rest = found
        return f"{self._quote} {self._texts.setdefault(text, f'GEMMA_{len(self._texts)}')} {rest}"

    def _list(self, schema: Mapping[str, Any], number: int, root: dict[str, Any]) -> str:
        item = self._value(schema.get("items", True), number, root)
        least, most = schema.get("minItems", 0), schema.get("maxItems")
        if least > _MOST_ITEMS or (most is not None and most > _MOST_ITEMS):
            raise _UnableError
        if most == 0:
            return '"[" ws "]"'
        further = f"{{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        items = f"{item} (comma {item}){further}"
        return self._rule(number, f'"[" ws {items} ws "]"' if least else f'"[" ws ({items})? ws "]"')

    def _mapping(self, schema: Mapping[str, Any], number: int, root: dict[str, Any]) -> str:
        properties = schema.get("properties")
        if properties is None:
            return "gemma_mapping"
        if schema.get("additionalProperties") not in (None, False) or not all(map(_KEY.fullmatch, properties)):
            raise _UnableError
        pairs = [
            (key in schema.get("required", ()), f"{quoted(f'{key}:')} ws {self._value(value, number, root)}")
            for key, value in properties.items()
        ]
        return self._rule(number, f'"{{" ws {self._members(number, pairs)} ws "}}"')

    def _members(self, number: int, pairs: Sequence[tuple[bool, str]]) -> str:
        """Members in the schema's order, all but the first after a comma; those not required may be left out."""
        first = later = '""'
        for required, pair in reversed(pairs):
            now = self._rule(number, f"{pair} {later}")
            first = now if required else f"({now} | {first})"
            later = f"comma {now}" if required else f"(comma {now} | {later})"
            first, later = self._rule(number, first), self._rule(number, later)
        return first
