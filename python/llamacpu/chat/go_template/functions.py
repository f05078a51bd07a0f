"""The functions that a template may call: those of Go's text/template except the HTML ones, and Ollama's."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any

from llamacpu.chat.go_template.printf import formatted
from llamacpu.chat.go_template.values import Record, as_json, display, is_true, kind_of
from llamacpu.chat.traced import concatenate

__all__ = ["FUNCTIONS", "LAZY", "at"]

LAZY = ("and", "or")
"""Functions with short-circuit evaluation: they stop at the argument that decides the result."""


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (list, dict)):
        return len(value)
    raise TypeError(f"len of {kind_of(value)}; expected a text, slice or map")


def at(value: Any, *keys: Any) -> Any:
    """Go's `index`: the element reached by applying the keys one after another.

    Raises TypeError for a value that cannot be indexed or a key of the wrong type, ValueError for an index out of
    range.
    """
    if value is None:
        raise TypeError("index of nil")
    for key in keys:
        if isinstance(value, dict):
            if not isinstance(key, str):
                raise TypeError(f"index {display(key)} of a map; expected a text")
            value = value.get(key)
        elif isinstance(value, (list, str)):
            items: Any = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            value = items[_place(key, len(items) - 1)]
        elif value is None:
            raise TypeError("index of nil")
        else:
            raise TypeError(f"index of {kind_of(value)}; expected a slice, map or text")
    return value


def _place(key: Any, most: int) -> int:
    if isinstance(key, bool) or not isinstance(key, int):
        raise TypeError(f"the index is {kind_of(key)}; expected a whole number")
    if not 0 <= key <= most:
        raise ValueError(f"the index {key} is out of range: expected 0 to {most}")
    return key


def _slice(value: Any, *places: Any) -> Any:
    if not isinstance(value, (list, str)):
        raise TypeError(f"slice of {kind_of(value)}; expected a slice or text")
    if len(places) > (2 if isinstance(value, str) else 3):
        raise TypeError(f"slice with {len(places)} indices; expected two at most")
    length = _length(value)
    start, end = (*(_place(place, length) for place in places), *(0, length)[len(places) :])[:2]
    if start > end:
        raise ValueError(f"slice from {start} to {end}; expected an end after the start")
    if isinstance(value, list):
        return value[start:end]
    ends = {0: 0}
    count = 0
    for number, character in enumerate(str(value), 1):
        count += len(character.encode("utf-8", "surrogatepass"))
        ends[count] = number
    if start not in ends or end not in ends:
        raise ValueError("slice cuts a character in two; its indices count bytes of UTF-8")
    return value[ends[start] : ends[end]]


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TypeError("eq needs two values at least")
    return any(_same(first, other) for other in others)


def _same(first: Any, second: Any) -> bool:
    if first is None or second is None:
        return first is second
    if isinstance(first, (list, dict, Record)) or isinstance(second, (list, dict, Record)):
        raise TypeError(f"{kind_of(first)} and {kind_of(second)} cannot be compared")
    if kind_of(first) != kind_of(second):
        raise TypeError(f"{kind_of(first)} and {kind_of(second)} cannot be compared; expected values of one type")
    return bool(first == second)


def _less(first: Any, second: Any) -> bool:
    kinds = kind_of(first), kind_of(second)
    if kinds[0] != kinds[1] or kinds[0] not in ("string", "int", "float64"):
        raise TypeError(f"{kinds[0]} and {kinds[1]} cannot be put in order; expected two texts or two numbers")
    return bool(first < second)


def _print(*values: Any) -> str:
    """Go's `print`: adds a space between adjacent operands when neither is a string."""
    parts: list[str] = []
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            parts.append(" ")
        parts.append(display(value))
    return concatenate(parts)


def _print_line(*values: Any) -> str:
    parts: list[str] = []
    for value in values:
        parts += [display(value), " "]
    return concatenate([*parts[:-1], "\n"])


def _printf(form: Any, *values: Any) -> str:
    if not isinstance(form, str):
        raise TypeError(f"the form of printf is {kind_of(form)}; expected a text")
    return formatted(form, values)


def _date(*_form: Any) -> str:
    return datetime.datetime.now().strftime("%Y-%m-%d")


def _yesterday(*_form: Any) -> str:
    return (datetime.datetime.now() - datetime.timedelta(days=1)).strftime("%Y-%m-%d")


def _type_script(value: Any) -> str:
    """The type of a tool's property in TypeScript notation."""
    if not isinstance(value, Record) or value.kind != "ToolProperty":
        raise TypeError(f"{kind_of(value)} is no property of a tool")
    choices = value.fields["AnyOf"]
    if choices:
        return " | ".join(map(_type_script, choices))
    types = value.fields["Type"]
    names = [types] if isinstance(types, str) else list(types or ())
    return " | ".join(_TYPES.get(name, "any") for name in names) or "any"


_TYPES = {
    "string": "string",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
    "null": "null",
}


FUNCTIONS: Mapping[str, tuple[Callable[..., Any], int, int | None]] = {
    "and": (lambda *values: values, 1, None),
    "or": (lambda *values: values, 1, None),
    "not": (lambda value: not is_true(value), 1, 1),
    "len": (_length, 1, 1),
    "index": (at, 1, None),
    "slice": (_slice, 1, None),
    "eq": (_equal, 1, None),
    "ne": (lambda first, second: not _same(first, second), 2, 2),
    "lt": (_less, 2, 2),
    "le": (lambda first, second: _less(first, second) or _same(first, second), 2, 2),
    "gt": (lambda first, second: not (_less(first, second) or _same(first, second)), 2, 2),
    "ge": (lambda first, second: not _less(first, second), 2, 2),
    "print": (_print, 0, None),
    "println": (_print_line, 0, None),
    "printf": (_printf, 1, None),
    "json": (as_json, 1, 1),
    "toJson": (as_json, 1, 1),
    "currentDate": (_date, 0, None),
    "yesterdayDate": (_yesterday, 0, None),
    "toTypeScriptType": (_type_script, 1, 1),
}
"""Name -> function, minimum and maximum number of arguments (None: no maximum)."""
