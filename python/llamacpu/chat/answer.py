"""Splits a streamed answer into reasoning, text for the reader, and tool calls.

The result depends only on the text, not on how it is divided into pieces: a state either decides what comes next
regardless of what follows, or waits for more text.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from llamacpu.chat.call_states import SPACE, CallStates
from llamacpu.chat.events import Event, Piece, ToolCall
from llamacpu.chat.joined import joined
from llamacpu.chat.left_out import LeftOut, any_of
from llamacpu.chat.marks import CALL_TAGS, ENDS_THOUGHT, INNER_MARKS, WITH_TAG, WRAPPERS, unfinished
from llamacpu.chat.openings import (
    Opening,
    begins_call,
    begins_code,
    begins_fence,
    begins_line,
    begins_named,
    is_undecided,
    recipient_at,
)
from llamacpu.chat.reasoning import ANYWHERE, REASONING_TAGS
from llamacpu.chat.stretches import Stretch

__all__ = ["AnswerReader", "Event", "Piece", "ToolCall"]

_OPENINGS = tuple(opening for opening, _ in REASONING_TAGS)
_CLOSINGS = tuple(closing for _, closing in REASONING_TAGS)
_FENCES = ("```", "~~~")
_LONGEST_MARK = 64
_UNOPENED = tuple(closing for closing in _CLOSINGS if closing not in ANYWHERE.values())


class AnswerReader(CallStates):
    """Splits an answer into reasoning, content and tool calls while it is being generated.

    tools              names of the available functions, or the schemas of their arguments by name; with None there are
                       no tools, and nothing is treated as a call
    reasoning          whether text in reasoning tags is separated from the content
    begins_reasoning   the prompt has opened the reasoning: the tag that closes it, or True for the usual one
    unopened           the answer may begin with reasoning that has no opening tag: its text is held back until a
                       closing tag, or the end of the answer, decides
    begins_recipient   the prompt ends in ``>>>``, and the answer begins with its recipient
    forced             the answer is one call in JSON, whatever it looks like
    only_tagged        calls without a tag occur only at the beginning or after another call
    drop               texts that do not belong to the answer: the control tokens of the vocabulary
    """

    def __init__(
        self,
        tools: Iterable[str] | Mapping[str, Any] | None = None,
        *,
        reasoning: bool = True,
        begins_reasoning: bool | str | None = False,
        unopened: bool = False,
        begins_recipient: bool = False,
        forced: bool = False,
        only_tagged: bool = False,
        drop: Collection[str] = (),
    ) -> None:
        super().__init__(tools)
        offered = self._found.offered
        self._reasoning, self._forced, self._only_tagged = reasoning, forced and offered, only_tagged
        self._recipient_first = begins_recipient and offered and not forced and not begins_reasoning
        self._recipients = self._recipient_first
        self._held = ">>>" if self._recipient_first else ""
        self._closing, self._opened = "", False
        if begins_reasoning and reasoning:
            self._closing = begins_reasoning if isinstance(begins_reasoning, str) else REASONING_TAGS[0][1]
            self._state, self._skipped, self._opened = "thought", SPACE, True
        elif unopened and reasoning and not self._recipient_first:
            self._state = "unopened"
        known = {tag for pair in REASONING_TAGS for tag in pair} if reasoning else set()
        if offered:
            known.update(CALL_TAGS, (close for close in CALL_TAGS.values() if close), INNER_MARKS)
        dropped = {*drop, *(WRAPPERS if offered else ())} - {""}
        # A control token may be a part of a tag.
        self._left_out = LeftOut({text for text in dropped if not any(text in tag for tag in known)})
        self._thought_ends = ENDS_THOUGHT if offered else ()
        self._whole_marks = (*(CALL_TAGS if offered else ()), *((*_OPENINGS, *_CLOSINGS) if reasoning else ()))
        fences = () if only_tagged else ("~~~",)
        self._held_marks = (*self._whole_marks, *(("```", ">>>", *fences) if offered else ()))
        self._marks = any_of((*self._held_marks, *("{[" if offered else ())))

    @property
    def calls(self) -> int:
        """The number of tool calls found so far."""
        return self._found.count

    def push(self, text: str) -> list[Event]:
        """Add text and return the events that are now certain."""
        self._held += self._left_out.without(text, final=False)
        return self._taken_apart(final=False)

    def finish(self) -> list[Event]:
        """End the answer and return the remaining events: text, or a call without its closing mark."""
        self._held += self._left_out.without("", final=True)
        return self._taken_apart(final=True)

    def _taken_apart(self, final: bool) -> list[Event]:
        events: list[Event] = []
        while (step := getattr(self, f"_in_{self._state}")(final)) is not None:
            events += self._joined.spaced(step)
        return joined(events)

    # Each state looks at the held text and returns events, or None to wait for more.

    def _in_start(self, final: bool) -> list[Event] | None:
        # Only white space and separators come between reasoning, calls and text.
        if self._skipped:
            rest = self._held.lstrip(self._skipped)
            self._joined.parted(self._space, self._held[: len(self._held) - len(rest)])
            self._held = rest
        text = self._held.lstrip()
        if not text:
            return self._begin("content") if final and self._held else None
        if self._reasoning:
            for opening, closing in REASONING_TAGS:
                if text.startswith(opening):
                    self._held, self._closing, self._skipped, self._opened = text[len(opening) :], closing, SPACE, True
                    return self._begin("thought")
            if not final and any(opening.startswith(text) for opening in _OPENINGS):
                return None
        name = self._begins_line(text, final)
        if name is None:
            return None
        if isinstance(name, str):
            self._tag, self._from = name, self._held.index("{", self._held.index("\n", len(self._held) - len(text)))
            return self._open("named", 0, 0, Stretch(None, self._from))[0]
        if self._forced and text[0] in "{[":
            self._held, self._stretch, self._space = text, Stretch(None), ""
            return None if is_undecided(text, 0) and not final else self._begin("bare")
        return self._begin("content")

    def _begins_line(self, text: str, final: bool) -> str | bool | None:
        if self._forced:
            return False
        names = self._found.names
        name = begins_line(text, names) if self._only_tagged else begins_named(text, names, final)
        return False if name is None and final else name

    def _in_unopened(self, final: bool) -> list[Event] | None:
        found = any_of((*_OPENINGS, *_UNOPENED)).search(self._held)
        if found is None or found[0] in _OPENINGS:
            return self._begin("start") if found is not None or final else None
        thought, self._held, self._opened = self._held[: found.start()].strip(), self._held[found.end() :], True
        self._restart(SPACE)
        return [Piece("reasoning", thought)]

    def _in_thought(self, final: bool) -> list[Event] | None:
        if self._skipped:
            self._held = self._held.lstrip(self._skipped)
            self._skipped = "" if self._held else self._skipped
        end = any_of((self._closing, *self._thought_ends)).search(self._held)
        # White space before the closing tag does not belong to the reasoning.
        if end is not None:
            thought = self._held[: end.start()].rstrip()
            self._held = self._held[end.end() if end[0] == self._closing else end.start() :]
            self._restart(SPACE)
            return [Piece("reasoning", thought)]
        stop = len(self._held) - (0 if final else unfinished(self._held, (self._closing, *self._thought_ends)))
        thought = self._held[:stop].rstrip()
        self._held = "" if final else self._held[len(thought) :]
        return [Piece("reasoning", thought)] if thought else None

    def _in_content(self, final: bool) -> list[Event] | None:
        position = behind_fence = 0
        begun = len(self._held) - (0 if final else unfinished(self._held, self._whole_marks))
        while (found := self._marks.search(self._held, position)) is not None:
            if begun < found.start():
                # This may be the end of a longer mark, such as "Action: ```json".
                return self._shown(begun, trim=True)
            decided = self._decide(found[0], found.start(), final)
            if decided is None and not final:
                return self._shown(found.start(), trim=True)
            if decided:
                return decided[0]
            position = found.end()
            behind_fence = position if found[0] in _FENCES else behind_fence
        stop = len(self._held) - (0 if final else unfinished(self._held, self._held_marks))
        # A fence has been counted: no part of it may be seen again.
        stop = max(stop, behind_fence)
        # White space before a call does not belong to the content.
        return self._shown(stop, trim=self._found.offered and not final)

    def _decide(self, mark: str, place: int, final: bool) -> tuple[list[Event]] | tuple[()] | None:
        """Decide what a mark in the held text is: events if something begins, () for plain text, None to wait."""
        text = self._held
        if mark in ANYWHERE:
            before = self._before(place)
            self._held = self._held[place + len(mark) :]
            self._restart(SPACE)
            self._state, self._closing, self._opened = "thought", ANYWHERE[mark], True
            return ([Piece("content", before)],)
        if mark in ANYWHERE.values():
            shown = self._shown(place, trim=False) or []
            self._held = self._held[len(mark) :]
            return (shown,)
        if mark in _OPENINGS:
            self._opened = True
            return ()
        if mark in _CLOSINGS:
            return self._close(mark, place)
        if mark in CALL_TAGS:
            self._tag = mark
            return self._open("call", place, place + (0 if mark in WITH_TAG else len(mark)), Stretch(mark))
        if mark in ("{", "["):
            if mark == "[" and not final and self._may_be_mark(text[place : place + _LONGEST_MARK]):
                return None
            if not self._may_be_bare(place):
                return ()
            begins = begins_call(text, place)
            return self._open("bare", place, place, Stretch(None)) if begins else None if begins is None else ()
        if mark == ">>>":
            return () if self._only_tagged and not self._recipients else self._address(place, final)
        code = False if self._fenced else self._begins_code(place)
        if code:
            self._from = self._held.index("\n", place) - place
            return self._open("code", place, place, Stretch(None))
        bracket = None if self._fenced or code is None else self._begins_fence(place)
        if bracket is None and not self._fenced and not final:
            return None
        if bracket:
            self._from, self._fence = bracket - place, mark
            return self._open("fence", place, place, Stretch(None, self._from))
        # A fenced block ends with the fence it began with.
        self._fenced = mark if not self._fenced else "" if self._fenced == mark else self._fenced
        return ()

    def _may_be_mark(self, text: str) -> bool:
        """Whether the rest of the text so far may be the beginning of a mark."""
        return any(tag.startswith(text) for tag in self._whole_marks)

    def _begins_code(self, place: int) -> bool | None:
        """Like `begins_code`; if a grammar constrains the calls, only its opening for them counts."""
        if not self._only_tagged:
            return begins_code(self._held, place)
        opening = Opening.of_code(self._found.names)
        if opening is None:
            return False
        if re.compile(opening.opens).match(self._held, place):
            return True
        return None if re.compile(opening.begun).fullmatch(self._held, place) else False

    def _begins_fence(self, place: int) -> int | bool | None:
        """Like `begins_fence`; if a grammar constrains the calls, only its opening for them counts."""
        if not self._only_tagged:
            return begins_fence(self._held, place)
        opening = Opening.of_fences(self._found.names)
        if opening is None:
            return False
        found = re.compile(opening.opens).match(self._held, place)
        if found is not None:
            return re.compile(r"[{\[]").search(self._held, place).start()  # type: ignore[union-attr]
        return None if re.compile(opening.begun).fullmatch(self._held, place) else False

    def _close(self, mark: str, place: int) -> tuple[list[Event]] | tuple[()]:
        """End reasoning that had no opening tag: its text has already been shown; the tag itself is dropped."""
        if self._opened:
            return ()
        self._opened = True
        before = self._before(place)
        self._held = self._held[place + len(mark) :]
        self._restart(SPACE)
        return ([Piece("content", before)],)

    def _before(self, place: int) -> str:
        """The text in front of a mark; white space at its end is kept apart if calls may follow it."""
        before = self._held[:place].rstrip() if self._found.offered else self._held[:place]
        self._space = self._held[len(before) : place]
        return before

    def _may_be_bare(self, place: int) -> bool:
        """Whether a call without a tag may begin at this position of the held text."""
        last = self._held[place - 1] if place else self._last or " "
        if not self._bare_calls or self._fenced or not last.isspace():
            return False
        return not self._only_tagged or (self._at_start and not self._held[:place].strip())

    def _address(self, place: int, final: bool) -> tuple[list[Event]] | tuple[()] | None:
        """Read ``>>>`` and the recipient of the text that follows."""
        before = self._held[:place]
        begun = before if self._only_tagged else before.rstrip(" ")
        line_begins = self._at_start if not before.strip() and "\n" not in before else begun.endswith("\n")
        name = recipient_at(self._held, place, self._found.names) if line_begins else ""
        if name is None and not final:
            return None
        if isinstance(name, str) and name:
            self._tag, self._recipient_first = name, False
            state = "start" if name == "all" else "recipient"
            return self._open(state, place, self._held.index("\n", place) + 1, Stretch(None))
        if self._recipient_first:
            # The mark belongs to the prompt.
            self._held, self._recipient_first = self._held[:place] + self._held[place + len(">>>") :], False
            return ([],)
        return ()
