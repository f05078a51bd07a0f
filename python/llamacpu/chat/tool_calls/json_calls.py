"""Calls in JSON: one object, a list, or several in succession."""

from __future__ import annotations

import json
from typing import Any

from llamacpu import log
from llamacpu.chat.brackets import items_of
from llamacpu.chat.tool_calls.call import DECODER, Call, IdentifiedCall, read_arguments, refused

__all__ = ["json_parts", "only_calls", "read_forced", "read_json"]

# Keys of a call that are not arguments.
_ABOUT_CALL = frozenset(("call_id", "function", "id", "index", "name", "tool_call_id", "tool_name", "type"))


def read_json(text: str) -> list[Call] | None:
    """Parse one call, a list of calls, or several in succession."""
    parts = json_parts(text, certain=False)
    return None if parts is None else only_calls(parts)


def only_calls(parts: list[Call | str]) -> list[Call] | None:
    """The parts as calls; None if there are none, or if one of them is text."""
    calls = [part for part in parts if isinstance(part, Call)]
    return calls if calls and len(calls) == len(parts) else None


def json_parts(text: str, certain: bool) -> list[Call | str] | None:
    """The calls in a JSON text and the parts that are not calls; None if nothing is JSON.

    certain: the text is known to consist of calls, so an object without an arguments key holds the arguments itself.
    """
    if refused(text):
        return None
    parts: list[Call | str] = []
    position = 0
    while position < len(text):
        if text[position] in " \t\r\n;,":
            position += 1
            continue
        begin = position
        try:
            value, position = DECODER.raw_decode(text, begin)
        except (ValueError, RecursionError):
            if text[begin] != "[" or not text.rstrip().endswith("]"):
                return [*parts, text[begin:]] if parts else None
            # One element is not JSON, but the others may be.
            for item in items_of(text[begin:].rstrip(), python=False):
                parts += json_parts(item, certain) or [item]
            return parts
        for item in _listed(value):
            parts.append(_from_object(item, certain) or json.dumps(item, ensure_ascii=False))
    return parts


def _listed(value: Any) -> list[Any]:
    """The calls in a JSON value: the elements of a list, also of one under the single key "tool_calls"."""
    if isinstance(value, dict) and [*value] == ["tool_calls"] and isinstance(value["tool_calls"], list):
        value = value["tool_calls"]
    return value if isinstance(value, list) else [value]


def _from_object(value: Any, certain: bool) -> Call | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        call = _from_object(inner, certain)
        return call and IdentifiedCall.of(call, value.get("id"))
    name = value.get("name", value.get("tool_name", inner))
    if not isinstance(name, str) or not name.strip():
        return None
    key = next((key for key in ("arguments", "parameters") if key in value), None)
    others = {other: item for other, item in value.items() if other not in _ABOUT_CALL and other != key}
    if key is not None:
        arguments = value[key]
        if others:
            left_out = ", ".join(sorted(others))
            log.warning("a call of %s has keys besides its name and arguments, which are left out: %s", name, left_out)
    elif (others and not certain) or (not {"name", "tool_name"} & set(value) and not others):
        return None
    else:
        arguments = others
    if arguments is None:
        arguments = {}
    if isinstance(arguments, str):
        arguments = read_arguments(arguments)
    return IdentifiedCall.of(Call(name, arguments), value.get("id")) if isinstance(arguments, dict) else None


def read_forced(text: str) -> Call | None:
    """Parse the single call that a grammar has made of a whole answer, however long or deeply nested it is."""
    try:
        value = DECODER.decode(text)
        name, arguments = value["name"], value.get("parameters", value.get("arguments"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return Call(name, {} if arguments is None else arguments) if isinstance(name, str) else None
