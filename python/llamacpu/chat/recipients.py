"""Answers as messages with recipients, as Muse Glimmer writes them; the prompt ends with the role.

 to=self<|message|>...<|eom|><|start|>assistant to=user<|message|>...<|eot|>
 to=f<|message|><atem:function_calls>
<atem:invoke name="f">
<atem:parameter name="a">1</atem:parameter>
</atem:invoke>
</atem:function_calls><|eot|>
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llamacpu.chat.events import Event, Piece
from llamacpu.chat.messages import MESSAGE, MessageReader
from llamacpu.chat.tool_calls import Call, read_arguments, read_invoked

__all__ = ["CALLS_CLOSING", "CALLS_OPENING", "RecipientReader"]

CALLS_OPENING, CALLS_CLOSING = "<atem:function_calls>", "</atem:function_calls>"

_INVOKE_END = "</atem:invoke>"
_TO = "to="
_NAME = re.compile(r"[^\s<]*")
# Anything longer is not a header.
_LONGEST_HEADER = 1000
# How many characters at the beginning and at the end of a call show whether it is complete.
_BEGIN, _END = 200, 120


class RecipientReader(MessageReader):
    """Splits an answer of messages with recipients while it is being generated.

    Messages to "self" are reasoning, messages to "user" or to nobody are content, all others are calls. Several
    messages of one kind are separated by an empty line.

    tools      names of the available functions, or the schemas of their arguments by name; with None, calls stay text
    reasoning  whether messages to "self" are separated from the content
    begun      whether the prompt ends in the middle of the content
    """

    ends: tuple[str, ...] = ("<|eom|>", "<|eot|>", "<|start|>")

    def __init__(
        self,
        tools: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        reasoning: bool = True,
        begun: bool = False,
    ) -> None:
        super().__init__(reasoning)
        self._names = None if tools is None else frozenset(tools)
        self._schemas = tools if isinstance(tools, Mapping) else None
        self._kind = "content" if begun else "header"
        self._recipient = ""
        # The kinds of which there has been text, and whether the current message has had none yet.
        self._shown: set[str] = {"content"} if begun else set()
        self._new = False
        # The first and the last characters of a call whose end has not arrived.
        self._first = self._last = ""
        # Whether any mark ends a call, since a closing tag is missing.
        self._lenient = False

    def _header(self, final: bool) -> list[Event] | None:
        held = self._held[self._place : self._place + _LONGEST_HEADER]
        found = _read_header(held)
        if found is None and final:
            if held.lstrip().startswith(("<|", _TO)) or not held.strip():
                # A truncated header is of no use.
                self._place = len(self._held)
                return None
            found = 0, ""
        if found is None:
            return None
        length, recipient = found
        self._new = True
        if not length:
            return [*map(self._separated, self._as_text())]
        self._place += length
        if recipient == "self":
            self._kind = "reasoning"
        elif recipient in ("", "user") or self._names is None:
            self._kind = "content"
        else:
            self._kind, self._recipient, self._first, self._last = "call", recipient, "", ""
        return []

    def _ends_call(self, stop: int) -> bool:
        if self._lenient:
            return True
        begin = self._first + self._held[self._place : min(stop, self._place + _BEGIN)]
        end = self._last + self._held[max(self._place, stop - _END) : stop]
        is_block = begin[:_BEGIN].lstrip().startswith(CALLS_OPENING)
        return not is_block or end[-_END:].rstrip().endswith(CALLS_CLOSING)

    def _body(self, final: bool) -> list[Event] | None:
        events = super()._body(final)
        if events is None and self._kind == "call" and self._collected:
            self._first = (self._first + self._collected[-1][:_BEGIN])[:_BEGIN]
            self._last = (self._last + self._collected[-1][-_END:])[-_END:]
        return None if events is None else [self._separated(event) for event in events]

    def _separated(self, event: Event) -> Event:
        """The event, after an empty line if an earlier message was of the same kind."""
        if not isinstance(event, Piece) or not event.text:
            return event
        apart = self._new and event.kind in self._shown
        self._new = False
        self._shown.add(event.kind)
        return Piece(event.kind, f"\n\n{event.text}") if apart else event

    def _call(self, body: str) -> list[Event]:
        inner = body.strip()
        block, end, rest = inner.removeprefix(CALLS_OPENING).rpartition(_INVOKE_END)
        whole = end and CALLS_CLOSING.startswith(rest.strip())
        calls = read_invoked(block + end, self._schemas) if whole else None
        if calls is None and self._names is not None and self._recipient in self._names and inner[:1] == "{":
            arguments = read_arguments(inner)
            calls = None if arguments is None else [Call(self._recipient, arguments)]
        if calls is not None:
            return [self._made(*call) for call in calls]
        if not self._lenient and self._end.search(body):
            return self._parted(body)
        return [Piece("content", body)]

    def _parted(self, body: str) -> list[Event]:
        """The events of a call whose closing tag is missing, and of the messages that were taken for a part of it."""
        inner = RecipientReader(self._names if self._schemas is None else self._schemas)
        inner._held, inner._kind, inner._recipient, inner._lenient = body, "call", self._recipient, True
        inner._shown, inner._new, inner._calls = self._shown, self._new, self._calls
        events = inner.finish()
        self._new, self._calls = inner._new, inner._calls
        return events


def _read_header(text: str) -> tuple[int, str] | None:
    """The length of the header at the beginning of a text and its recipient; None if more text is needed.

    Text that is not a header gives 0 and "".
    """
    place = _skipped(text, 0)
    for mark in ("<|start|>", "assistant"):
        if text.startswith(mark, place):
            place = _skipped(text, place + len(mark))
        elif place == len(text) or mark.startswith(text[place:]):
            return _undecided(text)
    recipient = ""
    if text.startswith(_TO, place):
        end = _NAME.match(text, place + len(_TO)).end()  # type: ignore[union-attr]
        recipient, place = text[place + len(_TO) : end], _skipped(text, end)
    elif _TO.startswith(text[place:]):
        return _undecided(text)
    if text.startswith(MESSAGE, place):
        return place + len(MESSAGE), recipient
    return _undecided(text) if MESSAGE.startswith(text[place:]) else (0, "")


def _undecided(text: str) -> tuple[int, str] | None:
    return None if len(text) < _LONGEST_HEADER else (0, "")


def _skipped(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place
