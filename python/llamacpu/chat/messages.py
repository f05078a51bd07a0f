"""The common part of readers for answers made of messages with headers (`HarmonyReader`, `RecipientReader`)."""

from __future__ import annotations

import re
import secrets
from abc import ABC, abstractmethod

from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.found_calls import json_text
from llamacpu.chat.marks import unfinished
from llamacpu.chat.reasoning import REASONING_TAGS

__all__ = ["MESSAGE", "MessageReader"]

OPENING, CLOSING = REASONING_TAGS[0]
MESSAGE = "<|message|>"
"""The mark between the header of a message and its text."""


class MessageReader(ABC):
    """Splits an answer made of messages while it is being generated, with the same methods as `AnswerReader`.

    A subclass says where a header ends and what kind of message follows, and turns the text of a call into events.
    Each character is examined a bounded number of times, whatever pieces the answer arrives in.

    reasoning: whether reasoning is separated from the content; otherwise it is content between <think> and </think>.
    """

    ends: tuple[str, ...] = ()
    """The marks that end the text of a message."""
    start: str = "<|start|>"
    """The one of them that also begins the next header."""

    def __init__(self, reasoning: bool) -> None:
        self._reasoning = reasoning
        self._thinking = False
        # The undecided text and the position in it from which on it is undecided.
        self._held = ""
        self._place = 0
        # What this text belongs to: a header, or the text of a message of this kind.
        self._kind = "header"
        # The pieces of a call whose end has not arrived.
        self._collected: list[str] = []
        self._calls = 0
        self._end = re.compile("|".join(map(re.escape, self.ends)))

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
            kept = (event for event in found if isinstance(event, ToolCall) or event.text)
            events += kept if self._reasoning else (shown for event in kept for shown in self._tagged(event))
        self._held, self._place = self._held[self._place :], 0
        return events

    def _tagged(self, event: Event) -> list[Event]:
        """The event with reasoning as content between tags."""
        before, is_thought = "", isinstance(event, Piece) and event.kind == "reasoning"
        if is_thought != self._thinking:
            self._thinking = is_thought
            before = f"{OPENING}\n" if is_thought else f"\n{CLOSING}\n\n"
        if isinstance(event, Piece):
            return [Piece("content", before + event.text)]
        return [Piece("content", before), event] if before else [event]

    @abstractmethod
    def _header(self, final: bool) -> list[Event] | None:
        """Read a header and set the kind of the message; return None to wait for more text, or at the end."""

    @abstractmethod
    def _call(self, body: str) -> list[Event]:
        """The events of the text of a call."""

    def _ends_call(self, stop: int) -> bool:
        """Whether the mark at a position of the held text ends a call, rather than being a part of its text."""
        return True

    def _as_text(self) -> list[Event]:
        """Treat what looked like a header as text."""
        self._kind = "content"
        length = len(self._held) - len(self._held[self._place :].lstrip())
        if not self._held.startswith(self.start, length):
            return []
        begin, self._place = self._place, length + len(self.start)
        return [Piece("content", self._held[begin : self._place])]

    def _body(self, final: bool) -> list[Event] | None:
        """Emit the text of a message, or a call once it is complete."""
        kind, held, place = self._kind, self._held, self._place
        marks = self._end.finditer(held, place)
        end = next((mark for mark in marks if kind != "call" or self._ends_call(mark.start())), None)
        stop = end.start() if end else len(held)
        if end is None and not final:
            stop -= unfinished(self._held[max(self._place, stop - 64) :], self.ends)
        body, self._place = self._held[self._place : stop], stop
        if end is not None:
            # The start mark of a message belongs to its header.
            self._place = end.start() if end[0] == self.start else end.end()
            self._kind = "header"
        if kind != "call":
            return [Piece("reasoning" if kind == "reasoning" else "content", body)] if body or end else None
        self._collected.append(body)
        if end is None and not final:
            return None
        body, self._collected = "".join(self._collected), []
        if end is None:
            self._kind = "header"
        return self._call(body)

    def _made(self, name: str, arguments: object) -> ToolCall:
        self._calls += 1
        return ToolCall(self._calls - 1, secrets.token_hex(5)[:9], name, json_text(arguments))
