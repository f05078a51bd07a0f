"""Checks that messages and tools have the format of the OpenAI API, with error messages that say where they do not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from llamacpu.arguments import described

__all__ = ["check_messages", "check_response_format", "check_tools"]

_MESSAGE = "expected a dict such as {'role': 'user', 'content': 'Hello'}"
_TOOL = "expected {'type': 'function', 'function': {'name': ..., 'parameters': {...}}}"
_INSTEAD_OF_CONTENT = ("tool_calls", "function_call", "reasoning_content", "refusal")


def check_messages(messages: object) -> None:
    """Raise TypeError or ValueError if `messages` is not a valid list of messages, naming the one that is wrong."""
    if isinstance(messages, (str, bytes, Mapping)) or not isinstance(messages, Sequence):
        raise TypeError(f"messages is {described(messages)}; expected a list of messages, each {_MESSAGE[9:]}")
    if not messages:
        raise ValueError(f"messages is empty; expected at least one, {_MESSAGE[9:]}")
    for place, message in enumerate(messages):
        where = f"messages[{place}]"
        if not isinstance(message, Mapping):
            raise TypeError(f"{where} is {described(message)}; {_MESSAGE}")
        role, content = message.get("role"), message.get("content")
        if not isinstance(role, str):
            told = "has no role" if role is None else f"has the role {described(role)}"
            raise ValueError(f"{where} {told}{_misspelt(message, 'role')}; {_MESSAGE}")
        if "content" not in message and not any(message.get(key) for key in _INSTEAD_OF_CONTENT):
            raise ValueError(f"{where} has no content{_misspelt(message, 'content')}; {_MESSAGE}")
        if content is not None and not isinstance(content, (str, list, tuple)):
            raise TypeError(f"{where} has the content {described(content)}; expected a text or a list of parts")


def check_tools(tools: object, name: str = "tools") -> None:
    """Raise TypeError or ValueError if `tools` is not None or a valid list of tools, naming the one that is wrong."""
    if tools is None:
        return
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise TypeError(f"{name} is {described(tools)}; expected a list, of which each is {_TOOL[9:]}")
    for place, tool in enumerate(tools):
        where = f"{name}[{place}]"
        if not isinstance(tool, Mapping):
            raise TypeError(f"{where} is {described(tool)}; {_TOOL}")
        inner = tool.get("function", tool)
        if not isinstance(inner, Mapping):
            raise TypeError(f"{where} has the function {described(inner)}; {_TOOL}")
        called = inner.get("name")
        if not isinstance(called, str) or not called:
            told = "has no name" if called is None else f"has the name {described(called)}"
            raise ValueError(f"{where} {told}; {_TOOL}")
        parameters = inner.get("parameters")
        if parameters is not None and not isinstance(parameters, Mapping):
            raise TypeError(f"{where} ({called}) has the parameters {described(parameters)}; expected a JSON schema")


def check_response_format(given: object) -> None:
    """Raise ValueError if `given` is neither None nor a dict."""
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"response_format is {described(given)}; expected a dict such as {{'type': 'json_object'}}")


def _misspelt(message: Mapping[Any, Any], key: str) -> str:
    others = [name for name in message if isinstance(name, str) and name not in ("role", "content", "name")]
    close = difflib.get_close_matches(key, others, 1)
    return f", but {close[0]!r}" if close else ""
