"""Calls as elements: a function in a tag, and one element per argument."""

# ruff: noqa: RUF001, RUF002 (the bars of DeepSeek tags)

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from llamacpu.chat.tool_calls.call import DECODER, Call, properties_of, refused, typed

__all__ = ["read_invoked", "read_keyed", "read_tagged"]

_HEADER = re.compile(r"<function(?:=|\s+name=)\s*([^>\n]+?)\s*(/?)>\s*")
# What looks like a closing tag but is followed by other text is part of the value.
_PARAMETER = re.compile(
    r"\s*<(param|parameter)(?:=|\s+name=)\s*([^>\n]+?)\s*>(.*?)</\1>\s*(?=<param|</function>|\Z)", re.DOTALL
)
_NULL = re.compile(r"null\s*(?=</function>|\Z)")
_FUNCTION_END = re.compile(r"\s*(?:</function>\s*|\Z)")
_PAIR = re.compile(r"<arg_key>(.*?)</arg_key>\s*<arg_value>(.*?)</arg_value>", re.DOTALL)
_KEYED = re.compile(
    r"([^\s\[\]{}\"'<>]+)\s*((?:<arg_key>(?:(?!</arg_key>).)*</arg_key>\s*"
    r"<arg_value>(?:(?!</arg_value>).)*</arg_value>\s*)+)",
    re.DOTALL,
)
_INVOKE = re.compile(r'<(atem:|｜DSML｜|)invoke\s+name="([^"\n]+)"\s*>')


def read_tagged(text: str, schemas: Mapping[str, Any] | None = None) -> list[Call] | None:
    """Parse one or more ``<function=f>{...}</function>``, with JSON or with elements for the arguments.

    The elements are ``<param name="a">1</param>`` and ``<parameter=a>1</parameter>``; the function may be ``name="f"``.
    schemas: the schemas of the arguments by function name: a value is a string if its schema says so; otherwise it is
    parsed as JSON if it is valid JSON.
    """
    text = text.strip()
    if refused(text):
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
        properties = properties_of(schemas, name)
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


def _value_of(text: str, schema: Any) -> Any:
    if text.startswith("<![CDATA[") and text.endswith("]]>"):
        return text[9:-3]
    # A line break after the opening tag and one before the closing tag belong to the tags.
    text = text[text.startswith("\n") :]
    return typed(text[: len(text) - text.endswith("\n")], schema)


def read_keyed(text: str, schemas: Mapping[str, Any] | None = None) -> list[Call] | None:
    """Parse ``f`` with ``<arg_key>a</arg_key><arg_value>1</arg_value>`` per argument; values as in `read_tagged`."""
    text = text.strip()
    match = None if refused(text) else _KEYED.fullmatch(text)
    if match is None:
        return None
    properties = properties_of(schemas, match[1])
    pairs = ((key.strip(), value) for key, value in _PAIR.findall(match[2]))
    return [Call(match[1], {key: _value_of(value, properties.get(key)) for key, value in pairs})]


@cache
def _argument(prefix: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """An argument of a call whose tags have this prefix, and the end of the call."""
    tag = re.escape(prefix)
    argument = re.compile(
        rf'\s*<{tag}parameter\s+name="([^"\n]+)"(?:\s+string="(true|false)")?\s*>(.*?)</{tag}parameter>'
        rf"\s*(?=<{tag}parameter\s|</{tag}invoke>|\Z)",
        re.DOTALL,
    )
    return argument, re.compile(rf"\s*(?:</{tag}invoke>\s*|\Z)")


def read_invoked(text: str, schemas: Mapping[str, Any] | None = None) -> list[Call] | None:
    """Parse one or more ``<invoke name="f"><parameter name="a">1</parameter></invoke>``.

    The tags begin with ``atem:`` (Muse Glimmer), ``｜DSML｜`` (DeepSeek V3.2 and V4) or nothing (MiniMax). Strings are
    not trimmed. ``string="true"`` and ``"false"`` say whether a value is a string; otherwise its type is found as in
    `read_tagged`.
    """
    text = text.strip()
    if refused(text):
        return None
    calls: list[Call] = []
    position = 0
    while (header := _INVOKE.match(text, position)) is not None:
        prefix, name, position = header[1], header[2], header.end()
        argument, closing = _argument(prefix)
        properties = properties_of(schemas, name)
        arguments: dict[str, Any] = {}
        while (found := argument.match(text, position)) is not None:
            key, is_string, value = found.groups()
            schema = {"type": "string"} if is_string == "true" else None if is_string else properties.get(key)
            arguments[key] = typed(value, schema)
            position = found.end()
        end = closing.match(text, position)
        if end is None:
            return None
        position = end.end()
        calls.append(Call(name, arguments))
    return calls if position == len(text) and calls else None
