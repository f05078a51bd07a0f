"""The tool calls found in one answer: the available functions, the ids, and the parsing of a span of calls."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.tool_calls import Call, IdentifiedCall, read_code, read_parts

__all__ = ["CODE_TOOLS", "FoundCalls", "json_text"]

CODE_TOOLS: tuple[str, ...] = ("code_interpreter", "python", "ipython")
# Tags after which a bare name is a call without arguments.
_NAME_ALONE = ("<tool_call>", "[TOOL_CALLS]")


class FoundCalls:
    """The calls of one answer, numbered, each with a unique id.

    tools   names of the available functions, or the schemas of their arguments by name; None if there are none
    """

    def __init__(self, tools: Iterable[str] | Mapping[str, Any] | None) -> None:
        self.offered: bool = tools is not None
        self.names: frozenset[str] = frozenset(tools or ())
        self.count: int = 0
        self._schemas = tools if isinstance(tools, Mapping) else None
        self._ids: set[str] = set()

    def tagged(self, tag: str, body: str) -> list[Call | str]:
        """Parse the text between tags into calls and the text that could not be parsed; [] if there is no call."""
        parts = read_parts(body, schemas=self._schemas)
        if tag == "<|python_tag|>" and not self.any_known(parts or []):
            parts = self._code(body) or parts
        if not parts and tag in _NAME_ALONE and body.strip() in self.names:
            parts = [Call(body.strip(), {})]
        return parts or []

    def code(self, body: str) -> list[Call | str]:
        """Parse consecutive calls in a fenced block of Python."""
        calls = read_code(body)
        return [*calls] if calls is not None else read_parts(body, certain=False) or []

    def _code(self, text: str) -> list[Call | str] | None:
        """Treat Python source after ``<|python_tag|>`` as a call of the code interpreter, if one is available."""
        name = next((name for name in CODE_TOOLS if name in self.names), None)
        return [Call(name, {"code": text})] if name and text.strip() and text.lstrip()[0] not in "{[" else None

    def addressed(self, name: str, body: str) -> list[Call | str]:
        """Parse text for a recipient that is not a JSON object of arguments: source code, nothing, or plain text."""
        if name in CODE_TOOLS:
            return [Call(name, {"code": body.rstrip()})]
        return [Call(name, {})] if body.strip() in ("", "null") else [body]

    def any_known(self, parts: Iterable[Call | str]) -> bool:
        """Whether one of the parts calls an available function."""
        return any(isinstance(part, Call) and part.name in self.names for part in parts)

    def events(self, parts: Iterable[Call | str]) -> list[Event]:
        """Turn calls into events with a number and an id, the model's own if it gave one; other parts are content."""
        events: list[Event] = []
        for part in parts:
            if isinstance(part, str):
                events.append(Piece("content", part))
                continue
            given = part.id if isinstance(part, IdentifiedCall) and part.id not in self._ids else None
            identity = given or secrets.token_hex(5)[:9]
            self._ids.add(identity)
            events.append(ToolCall(self.count, identity, part.name, json_text(part.arguments)))
            self.count += 1
        return events


def json_text(value: Any) -> str:
    """JSON text; an unpaired surrogate, which no text encoding can represent, stays an escape."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isascii() or not re.search("[\ud800-\udfff]", text) else json.dumps(value)
