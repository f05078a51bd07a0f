"""The states of the answer reader during a tool call: each waits for the end of the call, then parses it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from llamacpu.chat.events import Event, Piece
from llamacpu.chat.found_calls import FoundCalls
from llamacpu.chat.joined import Joined
from llamacpu.chat.marks import WITH_TAG
from llamacpu.chat.openings import is_undecided
from llamacpu.chat.stretches import Stretch
from llamacpu.chat.tool_calls import Call, read_arguments, read_forced, read_parts

__all__ = ["SPACE", "CallStates"]

SPACE: str = " \t\r\n"
_SEPARATORS = SPACE + ";,"
_CODE_END = re.compile(r"(?:\n[ \t]*|(?<=\))[ \t]*)()```")


class CallStates:
    """Holds the undecided text and the state that examines it.

    Each state is a method that returns events, or None to wait for more text. `final` says that no more will come.
    """

    def __init__(self, tools: Iterable[str] | Mapping[str, Any] | None) -> None:
        self._found, self._joined = FoundCalls(tools), Joined()
        self._held, self._state, self._skipped = "", "start", ""
        self._forced, self._bare_calls = False, True
        # Whether no text has been shown since the last start, its last character, and the fence of the block it is in.
        self._at_start, self._last, self._fenced = True, "", ""
        # The fence of a block that may be a call.
        self._fence = "```"
        # The span that may be a call, what opened it, where its bracket is, and the white space before it.
        self._stretch, self._tag, self._from, self._space = Stretch(None), "", 0, ""

    def _begin(self, state: str) -> list[Event]:
        self._state, self._at_start = state, True
        return []

    def _restart(self, skipped: str) -> None:
        """Start afresh after something is complete: after the characters in `skipped`, anything may follow."""
        self._state, self._skipped, self._at_start, self._last = "start", skipped, True, ""

    def _shown(self, stop: int, trim: bool) -> list[Event] | None:
        """Emit the held text up to `stop` as content; with `trim`, trailing white space stays held."""
        text = self._held[:stop].rstrip() if trim else self._held[:stop]
        if not text:
            return None
        self._held, self._at_start, self._last = self._held[len(text) :], False, text[-1]
        return [Piece("content", text)]

    def _open(self, state: str, place: int, start: int, stretch: Stretch) -> tuple[list[Event]]:
        """Begin a span: the text before `place` is content, and the held text now begins at `start`."""
        before = self._held[:place].rstrip()
        self._space, self._held = self._held[len(before) : place], self._held[start:]
        self._restart("")
        self._state, self._stretch = state, stretch
        return ([Piece("content", before)] if before else [],)

    def _in_call(self, final: bool) -> list[Event] | None:
        found = self._stretch.end(self._held, final)
        if found is None:
            return None
        body = self._held[: found[1] if self._tag in WITH_TAG else found[0]]
        self._held = self._held[found[1] :]
        # Llama 3.1 writes ";" between calls.
        self._restart(_SEPARATORS if self._tag == "<|python_tag|>" else SPACE)
        self._joined.parted(self._space, "")
        self._space = ""
        parts = self._found.tagged(self._tag, body)
        return self._found.events(parts) if parts else [Piece("content", body if body.strip() else "")]

    def _in_bare(self, final: bool) -> list[Event] | None:
        found = self._stretch.end(self._held, False)
        if found is None:
            if final:
                # The brackets never close. Tags may follow, but untagged calls would be searched for over and over.
                self._not_a_call(0)
                self._bare_calls = self._forced = False
            return [] if final else None
        end = found[0]
        text = self._held[:end]
        call = read_forced(text) if self._forced else None
        parts: list[Call | str] = [call] if call else read_parts(text, certain=False) or []
        if not call and not self._found.any_known(parts):
            return self._not_a_call(end)
        self._held = self._held[end:]
        self._restart(_SEPARATORS)
        return self._found.events(parts)

    def _not_a_call(self, end: int) -> list[Event]:
        """Treat what looked like a call up to `end` as text, with the white space before it."""
        self._held, self._state = self._space + self._held, "content"
        return (self._shown(len(self._space) + end, trim=False) or []) if end else []

    def _in_fence(self, final: bool) -> list[Event] | None:
        while (found := self._stretch.end(self._held, False)) is not None:
            end = found[0]
            rest = self._held[end:].lstrip(_SEPARATORS)
            place = len(self._held) - len(rest)
            if self._fence.startswith(rest[:3]):
                if len(rest) < 3 and not final:
                    return None
                parts = read_parts(self._held[self._from : end], certain=False) or []
                if not self._found.any_known(parts):
                    return self._not_a_call(place + len(rest[:3]))
                self._held = rest[3:]
                self._restart(SPACE)
                return self._found.events(parts)
            if rest[0] not in "{[":
                break
            if is_undecided(rest, 0) and not final:
                return None
            self._stretch = Stretch(None, place)
        else:
            if not final:
                return None
        self._fenced = self._fence
        return self._not_a_call(3)

    def _in_code(self, final: bool) -> list[Event] | None:
        found = _CODE_END.search(self._held, self._from)
        if found is None and not final:
            return None
        parts = self._found.code(self._held[self._from : found.start(1)]) if found else []
        if not found or not self._found.any_known(parts):
            self._fenced = "```"
            return self._not_a_call(3)
        self._held = self._held[found.end() :]
        self._restart(SPACE)
        return self._found.events(parts)

    def _in_named(self, final: bool) -> list[Event] | None:
        found = self._stretch.end(self._held, False)
        if found is None:
            if final:
                self._bare_calls = False
            return self._not_a_call(0) if final else None
        arguments = read_arguments(self._held[self._from : found[0]])
        if arguments is None:
            return self._not_a_call(found[0])
        self._held = self._held[found[0] :]
        self._restart(SPACE)
        return self._found.events([Call(self._tag, arguments)])

    def _in_recipient(self, final: bool) -> list[Event] | None:
        text = self._held.lstrip()
        if text.startswith("{"):
            self._held = text
            found = self._stretch.end(text, False)
            arguments = read_arguments(text[: found[0]]) if found else None
            if found is None and not final:
                return None
            if found and arguments is not None:
                self._held = text[found[0] :]
                self._restart(SPACE)
                return self._found.events([Call(self._tag, arguments)])
        elif not text and not final:
            return None
        place = self._held.find("\n>>>")
        if place < 0 and not final:
            return None
        body = self._held if place < 0 else self._held[:place]
        self._held = self._held[len(body) :]
        self._restart(SPACE)
        return self._found.events(self._found.addressed(self._tag, body))
