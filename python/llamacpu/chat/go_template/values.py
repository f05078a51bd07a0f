"""Values of a template: Go's values in Python, when they count as true, and how they are formatted.

string, bool, int and float64 are str, bool, int and float; a slice is a list, a map a dict, nil None. `Record` is a
struct. The caller's strings are `Traced`, and so are strings made from them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.chat.traced import Traced, concatenate, has_data

__all__ = ["JsonList", "JsonMap", "Record", "as_json", "display", "float_text", "is_true", "kind_of"]

_ESCAPED = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class Record:
    """A struct.

    fields  Go's names and values
    layout  its fields in JSON: (JSON name, Go name, whether it is omitted if empty)
    json    whether it is formatted as JSON
    """

    __slots__ = ("fields", "json", "kind", "layout")

    def __init__(
        self, kind: str, fields: Mapping[str, Any], layout: Sequence[tuple[str, str, bool]] = (), json: bool = False
    ) -> None:
        self.kind: str = kind
        self.fields: Mapping[str, Any] = fields
        self.layout: Sequence[tuple[str, str, bool]] = layout
        self.json: bool = json


class JsonList(list[Any]):
    """A slice of a type that is formatted as JSON."""


class JsonMap(dict[str, Any]):
    """A map of a type that is formatted as JSON."""


def kind_of(value: object) -> str:
    """The name of a value's type in error messages."""
    if value is None:
        return "nil"
    if isinstance(value, Record):
        return value.kind
    names = ((bool, "bool"), (str, "string"), (int, "int"), (float, "float64"), (list, "slice"), (dict, "map"))
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def is_true(value: object) -> bool:
    """Whether a value counts as true in `if`: anything but false, 0, nil, and an empty string, slice or map."""
    return True if isinstance(value, Record) else bool(value)


def as_json(value: Any) -> str:
    """The JSON that Go's encoding/json writes for a value: without spaces, and with <, > and & escaped.

    Raises TypeError for NaN and infinity.
    """
    parts: list[str] = []
    _put_json(value, parts)
    return concatenate(parts)


def _put_json(value: Any, parts: list[str]) -> None:
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False).translate(_ESCAPED)
        parts.append(Traced(text) if has_data(value) else text)
    elif isinstance(value, bool) or value is None:
        parts.append({True: "true", False: "false", None: "null"}[value])
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise TypeError(f"{float_text(value)} cannot be written as JSON")
        parts.append(float_text(value, least=-6).replace("e-0", "e-"))
    elif isinstance(value, int):
        parts.append(str(value))
    elif isinstance(value, list):
        for place, item in enumerate(value):
            parts.append("," if place else "[")
            _put_json(item, parts)
        parts.append("]" if value else "[]")
    else:
        items = _members(value)
        for place, (key, item) in enumerate(items):
            parts.append("," if place else "{")
            _put_json(key, parts)
            parts.append(":")
            _put_json(item, parts)
        parts.append("}" if items else "{}")


def _members(value: Any) -> list[tuple[str, Any]]:
    """The members of a JSON object, in order."""
    if isinstance(value, dict):
        return [(key, value[key]) for key in sorted(value)]
    layout = ((name, value.fields.get(field), optional) for name, field, optional in value.layout)
    return [(name, item) for name, item, optional in layout if is_true(item) or not optional]


def display(value: Any) -> str:
    """A value as Go's fmt.Print formats it. Raises TypeError for a struct, whose format depends on Go's memory."""
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, (JsonList, JsonMap)) or (isinstance(value, Record) and value.json):
        return as_json(value)
    if isinstance(value, list):
        text = "[" + " ".join(map(display, value)) + "]"
    elif isinstance(value, dict):
        text = "map[" + " ".join(f"{key}:{display(value[key])}" for key in sorted(value)) + "]"
    else:
        raise TypeError(f"a {kind_of(value)} cannot be written; write its fields, or use json")
    return Traced(text) if _data(value) else text


def float_text(value: float, least: int = -4) -> str:
    """The shortest text of a float, with an exponent for magnitudes from 1e21 up and below 10 to the power `least`."""
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "+Inf" if value > 0 else "-Inf"
    mantissa, _, power = f"{value!r}".partition("e") if "e" in repr(value) else (repr(value), "", "")
    negative = mantissa.startswith("-")
    whole, _, part = mantissa.lstrip("-").partition(".")
    digits, exponent = (whole + part).rstrip("0"), len(whole) + int(power or 0)
    stripped = digits.lstrip("0")
    exponent -= len(digits) - len(stripped)
    digits = stripped or "0"
    if digits == "0":
        text = "0"
    elif least <= exponent - 1 < 21:
        if exponent <= 0:
            text = "0." + "0" * -exponent + digits
        else:
            text = digits[:exponent].ljust(exponent, "0") + ("." + digits[exponent:] if digits[exponent:] else "")
    else:
        shown = exponent - 1
        text = digits[0] + ("." + digits[1:] if digits[1:] else "") + f"e{'-' if shown < 0 else '+'}{abs(shown):02}"
    return ("-" if negative else "") + text


def _data(value: Any) -> bool:
    if isinstance(value, Record):
        return any(map(_data, value.fields.values()))
    if isinstance(value, dict):
        return any(_data(key) or _data(item) for key, item in value.items())
    if isinstance(value, list):
        return any(map(_data, value))
    return has_data(value)
