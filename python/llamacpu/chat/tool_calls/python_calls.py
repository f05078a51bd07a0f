"""Calls in Python notation: a list, one per line, or consecutive ones in a fenced block."""

from __future__ import annotations

from llamacpu.chat import pythonic
from llamacpu.chat.brackets import items_of
from llamacpu.chat.tool_calls.call import Call, refused
from llamacpu.chat.tool_calls.json_calls import only_calls

__all__ = ["python_lines", "python_parts", "read_code", "read_pythonic"]


def read_pythonic(text: str) -> list[Call] | None:
    """Parse a list of calls with keyword arguments, or one call; only literal values are supported."""
    parts = python_parts(text)
    return None if parts is None else only_calls(parts)


def python_parts(text: str) -> list[Call | str] | None:
    """The calls in a list and the elements that are not calls; None if there is no call."""
    text = text.strip()
    if not text or refused(text, python=True):
        return None
    items = items_of(text, python=True) if text[0] == "[" and text[-1] == "]" else [text]
    parts: list[Call | str] = []
    for item in items:
        try:
            parts.append(Call(*pythonic.read_call(item)))
        except ValueError:
            parts.append(item)
    return parts if any(isinstance(part, Call) for part in parts) else None


def python_lines(text: str) -> list[Call | str] | None:
    """Parse text with one call in Python notation per line."""
    parts: list[Call | str] = []
    for line in text.splitlines():
        parts += python_parts(line) or ([line] if line.strip() else [])
    return parts if any(isinstance(part, Call) for part in parts) else None


def read_code(text: str) -> list[Call] | None:
    """Parse consecutive calls in Python notation, each bare or inside `print` (Gemma 3)."""
    if refused(text, python=True):
        return None
    try:
        return [Call(*call) for call in pythonic.read_calls(text)]
    except ValueError:
        return None
