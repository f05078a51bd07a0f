"""Tool calls in the text of an answer, in the notations that models of the Llama family write them.

JSON        {"name": "f", "parameters": {"a": 1}}, several in a list or one after the other (Llama 3.1; Mistral, Hermes
            and Qwen inside their tags, with "arguments")
pythonic    [f(a=1, b="x"), g()] and brave_search.call(query="x") (Llama 3.2, 4): read as Python, never run
tagged      <function=f>{"a": 1}</function>, and name{"a": 1} (Mistral from version 11)

Every reader returns None for a text that is something else.
"""

# ruff: noqa: RUF001, RUF002 (the bars of DeepSeek tags)

from __future__ import annotations

import ast
import json
import re
from typing import Any, NamedTuple

# Longer texts, and nesting beyond this, are no tool calls.
LONGEST = 256 << 10
DEEPEST = 64

_NAME = re.compile(r"[A-Za-z_][\w.\-]*")
_TAGGED = re.compile(r"<function=([^>\n]+)>(.*?)(?:</function>|\Z)", re.DOTALL)
_DEEPSEEK = re.compile(r"(?:\w*<｜tool▁sep｜>)?(?P<name>[^\n]+)\n```(?:json)?\n(?P<arguments>.*?)\n?```", re.DOTALL)
_CONSTANTS = {"true": True, "false": False, "null": None}


class Call(NamedTuple):
    """A function and the arguments that it is called with."""

    name: str
    arguments: dict[str, Any]


class Balance:
    """Finds the end of a bracketed expression that arrives in pieces, quotes and escapes respected."""

    def __init__(self) -> None:
        self.depth = 0
        self.position = 0
        self._quote = ""
        self._escaped = False

    def end(self, text: str) -> int | None:
        """The position after the closing bracket, given the whole text so far; None while it is open."""
        for position in range(self.position, len(text)):
            letter = text[position]
            if self._quote:
                if self._escaped:
                    self._escaped = False
                elif letter == "\\":
                    self._escaped = True
                elif letter == self._quote:
                    self._quote = ""
            elif letter in "\"'":
                self._quote = letter
            elif letter in "[{(":
                self.depth += 1
            elif letter in "]})":
                self.depth -= 1
                if self.depth <= 0:
                    self.position = position + 1
                    return self.position
        self.position = len(text)
        return None


def _too_deep(text: str) -> bool:
    depth = deepest = 0
    for letter in text:
        if letter in "[{(":
            depth += 1
            deepest = max(deepest, depth)
        elif letter in "]})":
            depth -= 1
    return len(text) > LONGEST or deepest > DEEPEST


def _reject(constant: str) -> Any:
    raise ValueError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_reject, strict=False)


def read_json(text: str) -> list[Call] | None:
    """One call, a list of calls, or several one after the other."""
    if _too_deep(text):
        return None
    calls: list[Call] = []
    position = 0
    while position < len(text):
        if text[position] in " \t\r\n;,":
            position += 1
            continue
        try:
            value, position = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError):
            return None
        for item in value if isinstance(value, list) else [value]:
            call = _from_object(item)
            if call is None:
                return None
            calls.append(call)
    return calls or None


def _from_object(value: Any) -> Call | None:
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        return _from_object(inner)
    name = value.get("name", inner)
    arguments = value.get("arguments", value.get("parameters", {} if "name" in value else None))
    if isinstance(arguments, str):
        arguments = read_arguments(arguments)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or not isinstance(arguments, dict):
        return None
    return Call(name, arguments)


def read_arguments(text: str) -> dict[str, Any] | None:
    """An object of arguments written as JSON text; empty text is no arguments."""
    if _too_deep(text):
        return None
    try:
        value = _DECODER.decode(text) if text.strip() else {}
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def read_pythonic(text: str) -> list[Call] | None:
    """A list of calls with keyword arguments, or one call; only literals are understood."""
    if _too_deep(text):
        return None
    try:
        expression = ast.parse(text.strip(), mode="eval").body
        calls = expression.elts if isinstance(expression, ast.List) else [expression]
        return [_from_call(call) for call in calls] or None
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _from_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call) or node.args:
        raise ValueError("not a call with keyword arguments")
    parts: list[str] = []
    function = node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        raise ValueError("not a function's name")
    parts.append(function.id)
    if len(parts) > 1 and parts[0] == "call":  # brave_search.call(query="...")
        del parts[0]
    arguments = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no names for the arguments")
        arguments[keyword.arg] = _literal(keyword.value)
    return Call(".".join(reversed(parts)), arguments)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, bool, type(None))):
        return node.value
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        value = _literal(node.operand)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [_literal(key) for key in node.keys if key is not None]
        if len(keys) == len(node.values) and all(isinstance(key, str) for key in keys):
            return dict(zip(keys, map(_literal, node.values), strict=True))
    raise ValueError("not a literal value")


def read_tagged(text: str) -> list[Call] | None:
    """``<function=f>{...}</function>``, once or more often."""
    calls = []
    for match in _TAGGED.finditer(text):
        arguments = read_arguments(match[2])
        if arguments is None:
            return None
        calls.append(Call(match[1].strip(), arguments))
    return calls or None


def read_deepseek(text: str) -> list[Call] | None:
    """``function<｜tool▁sep｜>f``, a line break and the arguments in a fenced block."""
    match = _DEEPSEEK.fullmatch(text.strip())
    arguments = read_arguments(match["arguments"]) if match else None
    return [Call(match["name"].strip(), arguments)] if match and arguments is not None else None


def read_named(text: str) -> list[Call] | None:
    """``f{"a": 1}`` or ``f[ARGS]{"a": 1}``."""
    text = text.strip()
    match = _NAME.match(text)
    if match is None:
        return None
    rest = text[match.end() :].strip().removeprefix("[ARGS]")
    arguments = read_arguments(rest) if rest else None
    return None if arguments is None else [Call(match[0], arguments)]


def read_any(text: str) -> list[Call] | None:
    """Whichever notation the text is in."""
    for read in (read_json, read_pythonic, read_tagged, read_named, read_deepseek):
        calls = read(text)
        if calls is not None:
            return calls
    return None
