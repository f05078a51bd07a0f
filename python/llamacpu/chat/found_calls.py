"""The tool calls found in one answer: which functions are on offer, the ids, and what a stretch of calls says."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.tool_calls import Call, IdentifiedCall, read_code, read_parts

__all__ = ["CODE_TOOLS", "FoundCalls"]

CODE_TOOLS: tuple[str, ...] = ("code_interpreter", "python", "ipython")
# Tags after which a name alone is a call without arguments.
_NAME_ALONE = ("<tool_call>", "[TOOL_CALLS]")


class FoundCalls:
    """The calls of one answer, numbered, each with its own id.

    tools   names of the functions on offer, or the schemas of their arguments by name; None: none are
    """

    def __init__(self, tools: Iterable[str] | Mapping[str, Any] | None) -> None:
        self.offered: bool = tools is not None
        self.names: frozenset[str] = frozenset(tools or ())
        self.count: int = 0
        self._schemas = tools if isinstance(tools, Mapping) else None
        self._ids: set[str] = set()

    def tagged(self, tag: str, body: str) -> list[Call | str]:
        """What stands between tags: calls and what could not be read among them; [] where no call is."""
        parts = read_parts(body, schemas=self._schemas)
        if tag == "<|python_tag|>" and not self.any_known(parts or []):
            parts = self._code(body) or parts
        if not parts and tag in _NAME_ALONE and body.strip() in self.names:
            parts = [Call(body.strip(), {})]
        return parts or []

    def code(self, body: str) -> list[Call | str]:
        """Calls in a fenced block of Python, one after the other."""
        calls = read_code(body)
        return [*calls] if calls is not None else read_parts(body, certain=False) or []

    def _code(self, text: str) -> list[Call | str] | None:
        """Python source after ``<|python_tag|>`` is for the code interpreter, where one is on offer."""
        name = next((name for name in CODE_TOOLS if name in self.names), None)
        return [Call(name, {"code": text})] if name and text.strip() and text.lstrip()[0] not in "{[" else None

    def addressed(self, name: str, body: str) -> list[Call | str]:
        """What is written for a recipient without being an object of arguments: source, nothing at all, or text."""
        if name in CODE_TOOLS:
            return [Call(name, {"code": body.rstrip()})]
        return [Call(name, {})] if body.strip() in ("", "null") else [body]

    def any_known(self, parts: Iterable[Call | str]) -> bool:
        """Whether one of the parts calls a function on offer."""
        return any(isinstance(part, Call) and part.name in self.names for part in parts)

    def events(self, parts: Iterable[Call | str]) -> list[Event]:
        """Calls with a number and an id, that of the model where it gave one; what is no call is content."""
        events: list[Event] = []
        for part in parts:
            if isinstance(part, str):
                events.append(Piece("content", part))
                continue
            given = part.id if isinstance(part, IdentifiedCall) and part.id not in self._ids else None
            identity = given or secrets.token_hex(5)[:9]
            self._ids.add(identity)
            events.append(ToolCall(self.count, identity, part.name, _json(part.arguments)))
            self.count += 1
        return events


def _json(value: Any) -> str:
    """JSON text; half of a surrogate pair, which no encoding of text can hold, stays an escape."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or not re.search("[\ud800-\udfff]", text) else json.dumps(value)
