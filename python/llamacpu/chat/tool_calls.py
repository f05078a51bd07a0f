"""Parsers for tool calls in the text of an answer, in the notations that models of the Llama family use.

JSON        {"name": "f", "parameters": {"a": 1}}, several in a list or in succession (Llama 3.1; Mistral, Hermes
            and Qwen inside their tags, with "arguments")
pythonic    [f(a=1, b="x"), g()] and brave_search.call(query="x") (Llama 3.2, 4), f(a=1) in a fenced block `tool_code`
            (Gemma): parsed as Python, never executed
tagged      <function=f>{"a": 1}</function>, and name{"a": 1} (Mistral from version 11)
elements    <function name="f"><param name="a">1</param></function>, <function=f><parameter=a>1</parameter></function>,
            and f<arg_key>a</arg_key><arg_value>1</arg_value> (GLM)

Every parser returns None for text in another notation. `read_parts` parses what it can: a call that cannot be parsed
stays as text among the others.
"""

# ruff: noqa: RUF001, RUF002 (the bars of DeepSeek tags)

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from llamacpu import log
from llamacpu.chat import pythonic
from llamacpu.chat.brackets import is_python, items_of, too_deep

# Longer texts, in characters, and deeper nesting are not tool calls.
LONGEST = 256 << 10
DEEPEST = 64

# A name without quotes.
_BARE_NAME = re.compile(r"[^\s\[\]{}\"'<>]+")
_HEADER = re.compile(r"<function(?:=|\s+name=)\s*([^>\n]+?)\s*(/?)>\s*")
# What looks like a closing tag but is followed by other text is part of the value.
_PARAMETER = re.compile(
    r"\s*<(param|parameter)(?:=|\s+name=)\s*([^>\n]+?)\s*>(.*?)</\1>\s*(?=<param|</function>|\Z)", re.DOTALL
)
_NULL = re.compile(r"null\s*(?=</function>|\Z)")
_FUNCTION_END = re.compile(r"\s*(?:</function>\s*|\Z)")
_KIMI = re.compile(
    r"(?:functions\.)?(?P<name>[^\s:]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>(?P<arguments>.*)", re.DOTALL
)
_DEEPSEEK = re.compile(r"(?:\w*<｜tool▁sep｜>)?(?P<name>[^\n]+?)\s*```(?:json)?\n(?P<arguments>.*?)\n?```", re.DOTALL)
_SEPARATED = re.compile(r"(?P<name>[^\n<]+?)\s*<｜tool▁sep｜>\s*(?P<arguments>\{.*\}|null|)", re.DOTALL)
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_KEYED = re.compile(
    r"([^\s\[\]{}\"'<>]+)\s*((?:<arg_key>(?:(?!</arg_key>).)*</arg_key>\s*"
    r"<arg_value>(?:(?!</arg_value>).)*</arg_value>\s*)+)",
    re.DOTALL,
)
_IDENTIFIED = re.compile(r"\[CALL_ID\]\s*([A-Za-z0-9]+)")
_ID = re.compile(r"[A-Za-z0-9]{9}")
# Keys of a call that are not arguments.
_ABOUT_CALL = frozenset(("call_id", "function", "id", "index", "name", "tool_call_id", "tool_name", "type"))


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


def _refused(text: str, python: bool = False) -> bool:
    return len(text) > LONGEST or too_deep(text, DEEPEST, python)


def read_json(text: str) -> list[Call] | None:
    """Parse one call, a list of calls, or several in succession."""
    parts = _json_parts(text, certain=False)
    return None if parts is None else _only_calls(parts)


def _only_calls(parts: list[Call | str]) -> list[Call] | None:
    calls = [part for part in parts if isinstance(part, Call)]
    return calls if calls and len(calls) == len(parts) else None


def _json_parts(text: str, certain: bool) -> list[Call | str] | None:
    """The calls in a JSON text and the parts that are not calls; None if nothing is JSON.

    certain: the text is known to consist of calls, so an object without an arguments key holds the arguments itself.
    """
    if _refused(text):
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
                parts += _json_parts(item, certain) or [item]
            return parts
        for item in value if isinstance(value, list) else [value]:
            parts.append(_from_object(item, certain) or json.dumps(item, ensure_ascii=False))
    return parts


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


def read_arguments(text: str) -> dict[str, Any] | None:
    """Parse an object of arguments from JSON text; empty text and null mean no arguments."""
    if _refused(text):
        return None
    try:
        value = DECODER.decode(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    if value is None:
        return {}
    return value if isinstance(value, dict) else None


def read_pythonic(text: str) -> list[Call] | None:
    """Parse a list of calls with keyword arguments, or one call; only literal values are supported."""
    parts = _pythonic_parts(text)
    return None if parts is None else _only_calls(parts)


def _pythonic_parts(text: str) -> list[Call | str] | None:
    text = text.strip()
    if not text or _refused(text, python=True):
        return None
    items = items_of(text, python=True) if text[0] == "[" and text[-1] == "]" else [text]
    parts: list[Call | str] = []
    for item in items:
        try:
            parts.append(Call(*pythonic.read_call(item)))
        except ValueError:
            parts.append(item)
    return parts if any(isinstance(part, Call) for part in parts) else None


def _pythonic_lines(text: str) -> list[Call | str] | None:
    """Parse text with one call in Python notation per line."""
    parts: list[Call | str] = []
    for line in text.splitlines():
        parts += _pythonic_parts(line) or ([line] if line.strip() else [])
    return parts if any(isinstance(part, Call) for part in parts) else None


def read_code(text: str) -> list[Call] | None:
    """Parse consecutive calls in Python notation, each bare or inside `print` (Gemma)."""
    if _refused(text, python=True):
        return None
    try:
        return [Call(*call) for call in pythonic.read_calls(text)]
    except ValueError:
        return None


def read_tagged(text: str, schemas: Mapping[str, Any] | None = None) -> list[Call] | None:
    """Parse one or more ``<function=f>{...}</function>``, with JSON or with elements for the arguments.

    The elements are ``<param name="a">1</param>`` and ``<parameter=a>1</parameter>``; the function may be ``name="f"``.
    schemas: the schemas of the arguments by function name: a value is a string if its schema says so; otherwise it is
    parsed as JSON if it is valid JSON.
    """
    text = text.strip()
    if _refused(text):
        return None
    calls: list[Call] = []
    position = 0
    while (header := _HEADER.match(text, position)) is not None:
        name, position = header[1].strip("\"'"), header.end()
        arguments: Any = {}
        if header[2]:
            calls.append(Call(name, arguments))
            continue
        if (null := _NULL.match(text, position)) is not None:
            position = null.end()
        elif text.startswith("{", position):
            try:
                arguments, position = DECODER.raw_decode(text, position)
            except (ValueError, RecursionError):
                return None
        properties = _properties((schemas or {}).get(name))
        while (parameter := _PARAMETER.match(text, position)) is not None:
            key = parameter[2].strip("\"'")
            arguments[key] = _value_of(parameter[3], properties.get(key))
            position = parameter.end()
        end = _FUNCTION_END.match(text, position)
        if end is None:
            return None
        position = end.end()
        calls.append(Call(name, arguments))
    return calls if position == len(text) and calls else None


def _properties(schema: Any) -> Mapping[str, Any]:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties if isinstance(properties, Mapping) else {}


def _value_of(text: str, schema: Any) -> Any:
    if text.startswith("<![CDATA[") and text.endswith("]]>"):
        return text[9:-3]
    # A line break after the opening tag and one before the closing tag belong to the tags.
    text = text[text.startswith("\n") :]
    text = text[: len(text) - text.endswith("\n")]
    if is_text(schema) or _refused(text):
        return text
    try:
        return DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return text


def is_text(schema: Any) -> bool:
    """Whether the schema allows only strings."""
    if not isinstance(schema, Mapping):
        return False
    choices = schema.get("enum", [schema["const"]] if "const" in schema else None)
    if isinstance(choices, list) and choices:
        return all(isinstance(choice, str) for choice in choices)
    return schema.get("type") == "string"


def read_deepseek(text: str) -> list[Call] | None:
    """Parse ``function<｜tool▁sep｜>f`` with the arguments in a fenced block below, or ``f<｜tool▁sep｜>{"a": 1}``.

    Kimi's ``functions.f:0<|tool_call_argument_begin|>{"a": 1}`` is also accepted.
    """
    bare = text.strip()
    match = _SEPARATED.fullmatch(bare) or _DEEPSEEK.fullmatch(bare) or _KIMI.fullmatch(bare)
    arguments = read_arguments(match["arguments"]) if match else None
    return [Call(match["name"].strip(), arguments)] if match and arguments is not None else None


def read_keyed(text: str, schemas: Mapping[str, Any] | None = None) -> list[Call] | None:
    """Parse ``f`` with ``<arg_key>a</arg_key><arg_value>1</arg_value>`` per argument; values as in `read_tagged`."""
    text = text.strip()
    match = None if _refused(text) else _KEYED.fullmatch(text)
    if match is None:
        return None
    properties = _properties((schemas or {}).get(match[1]))
    pairs = ((key.strip(), value) for key, value in _PAIR.findall(match[2]))
    return [Call(match[1], {key: _value_of(value, properties.get(key)) for key, value in pairs})]


def read_named(text: str) -> list[Call] | None:
    """Parse ``f{"a": 1}``, ``f[ARGS]{"a": 1}`` or ``f[CALL_ID]abcdefghi[ARGS]{"a": 1}``."""
    text = text.strip()
    match = _BARE_NAME.match(text)
    if match is None:
        return None
    rest = text[match.end() :].strip()
    identified = _IDENTIFIED.match(rest)
    if identified is not None:
        rest = rest[identified.end() :].strip()
    marked = rest.startswith("[ARGS]")
    rest = rest.removeprefix("[ARGS]").strip()
    arguments = read_arguments(rest) if rest or marked else None
    if arguments is None:
        return None
    return [IdentifiedCall.of(Call(match[0], arguments), identified and identified[1])]


def read_any(text: str) -> list[Call] | None:
    """Parse a text in any notation that consists entirely of calls."""
    for read in (read_json, read_pythonic, read_tagged, read_keyed, read_named, read_deepseek):
        calls = read(text)
        if calls is not None:
            return calls
    return None


def read_parts(text: str, certain: bool = True, schemas: Mapping[str, Any] | None = None) -> list[Call | str] | None:
    """Parse the calls in a text, and the text between them that could not be parsed; None if there is no call.

    certain: the text was inside the tags of calls; otherwise it may be an object that only looks like a call.
    """
    bare = text.strip()
    found: list[Call | str] | None
    if bare[:1] in ("{", "["):
        found = _pythonic_parts(bare) if is_python(bare) else _json_parts(bare, certain)
    else:
        found = [
            *(read_tagged(bare, schemas) or read_keyed(bare, schemas) or read_named(bare) or read_deepseek(bare) or [])
        ]
        found = found or _pythonic_parts(bare) or _pythonic_lines(bare)
    return found if found and any(isinstance(part, Call) for part in found) else None
