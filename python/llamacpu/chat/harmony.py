"""Answers in channels, as gpt-oss writes them (OpenAI's "harmony" format).

<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable

from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.found_calls import CODE_TOOLS
from llamacpu.chat.marks import unfinished
from llamacpu.chat.tool_calls import read_arguments

__all__ = ["HarmonyReader"]

_MESSAGE = "<|message|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")
_END = re.compile("|".join(map(re.escape, _ENDS)))
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=([^\s<]+)")
# What a header may begin with after a prompt that ends with the role.
_HEADERS = ("<|channel|>", "<|start|>", "to=")
# Anything longer is not a header.
_LONGEST_HEADER = 1000


class HarmonyReader:
    """Splits an answer in channels while it is being generated, with the same methods as `AnswerReader`.

    tools      names of the available functions; with None, calls stay in the text
    reasoning  whether the "analysis" channel is separated from the content
    """

    def __init__(self, tools: Iterable[str] | None = None, *, reasoning: bool = True) -> None:
        self._tools = None if tools is None else frozenset(tools)
        self._reasoning = reasoning
        self._held = ""
        # What the held text belongs to: a header, or the body of a message of this kind.
        self._kind = "header"
        self._recipient = ""
        self._calls = 0

    @property
    def calls(self) -> int:
        """The number of tool calls found so far."""
        return self._calls

    def push(self, text: str) -> list[Event]:
        """Add text and return the events that are now certain."""
        self._held += text
        return self._events(final=False)

    def finish(self) -> list[Event]:
        """End the answer and return the remaining events."""
        return self._events(final=True)

    def _events(self, final: bool) -> list[Event]:
        events: list[Event] = []
        while (found := self._header(final) if self._kind == "header" else self._body(final)) is not None:
            events += (event for event in found if isinstance(event, ToolCall) or event.text)
        return events

    def _header(self, final: bool) -> list[Event] | None:
        """Read up to the text of a message; return None to wait, or at the end."""
        text = self._held.lstrip()
        if not text:
            return None
        place = self._held.find(_MESSAGE)
        begun = any(text.startswith(mark) or mark.startswith(text) for mark in _HEADERS)
        if place < 0 and begun and not final and len(text) < _LONGEST_HEADER:
            return None
        if place < 0 or not begun:
            if final and begun:
                # A truncated header is of no use.
                self._held = ""
                return None
            self._kind = "content"
            return []
        header, self._held = self._held[:place], self._held[place + len(_MESSAGE) :]
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient is not None and self._tools is not None:
            self._kind, self._recipient = "call", recipient[1].removeprefix("functions.")
        else:
            is_thought = channel is not None and channel[1] == "analysis" and self._reasoning
            self._kind = "reasoning" if is_thought else "content"
        return []

    def _body(self, final: bool) -> list[Event] | None:
        """Emit the text of a message, or a call once it is complete."""
        end = _END.search(self._held)
        if end is None and self._kind == "call" and not final:
            return None
        stop = end.start() if end else len(self._held) - (0 if final else unfinished(self._held, _ENDS))
        body, kind = self._held[:stop], self._kind
        if end is None:
            self._held = self._held[stop:]
            if not body:
                return None
        else:
            # The start mark of a message belongs to its header.
            self._held = self._held[end.start() if end[0] == "<|start|>" else end.end() :]
            self._kind = "header"
        if kind == "call":
            return [self._call(body)]
        return [Piece("reasoning" if kind == "reasoning" else "content", body)]

    def _call(self, body: str) -> Event:
        name, arguments = self._recipient, read_arguments(body)
        if arguments is None and name in CODE_TOOLS:
            arguments = {"code": body}
        if arguments is None:
            return Piece("content", body)
        self._calls += 1
        text = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(self._calls - 1, secrets.token_hex(5)[:9], name, text)
