"""Finds the end of spans of an answer that may be tool calls: text enclosed in tags, and calls without a tag."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import re
from collections.abc import Iterable

from llamacpu.chat.brackets import Brackets, is_python
from llamacpu.chat.marks import CALL_TAGS, INNER_MARKS, WITH_TAG
from llamacpu.chat.openings import is_undecided

_SPACE = re.compile(r"\s*")
_BEFORE_ARGUMENTS = re.compile(r"\s*[^\s\[\]{}\"'<>]*\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?")
_ALONE = re.compile(r"<function[^>\n]*/>")
# What must come before the closing tag of calls in element notation: other text may contain such a tag.
_BEFORE_CLOSING = {
    "<function=": re.compile(r">(\s*null)?\s*$"),
    "<function name=": re.compile(r">(\s*null)?\s*$"),
    "<tool_call>": re.compile(r"</(?:function|arg_value)>\s*$"),
    "<seed:tool_call>": re.compile(r"</function>\s*$"),
    "<｜DSML｜function_calls>": re.compile(r"</｜DSML｜invoke>\s*$"),
    "<｜DSML｜tool_calls>": re.compile(r"</｜DSML｜invoke>\s*$"),
    "<minimax:tool_call>": re.compile(r"</invoke>\s*$"),
}
_ELEMENT = re.compile(r"\s*(?:<|[^\s<>{}\[\]]+\s*<arg_key>)")
_QUOTED = "<|tool_call>"
_QUOTED_MARKS = re.compile(r'<\|"\|>|<tool_call\|>')


class Stretch:
    """Finds the end of a span that begins with the held text: of calls after `tag`, or of a bare call if it is None."""

    def __init__(self, tag: str | None, start: int = 0) -> None:
        self._tag = tag
        self._closing = CALL_TAGS.get(tag) if tag is not None else None
        self._start = start
        self._brackets: Brackets | None = None
        self._searched = start
        self._in_string = False

    def end(self, text: str, final: bool) -> tuple[int, int] | None:
        """Where the calls end and where the text continues; None while undecided, which never happens if `final`."""
        found = self._end(text)
        if found is None and final:
            # Brackets or quotation marks do not match, so strings are not respected.
            place = text.find(self._closing, self._start) if self._closing else -1
            return (place, place + len(self._closing or "")) if place >= 0 else (len(text), len(text))
        return found

    def _end(self, text: str) -> tuple[int, int] | None:
        if self._tag == _QUOTED:
            return self._quoted(text)
        if self._brackets is None:
            if self._tag in WITH_TAG and (alone := _ALONE.match(text, self._start)) is not None:
                return alone.end(), alone.end()
            place = self._opening(text)
            if place is None:
                return None
            if place < 0:
                return self._plain(text)
            self._brackets = Brackets(place, python=is_python(text, place))
        while True:
            place = self._brackets.end(text)
            if place is None:
                return None
            self._searched = place
            if self._closing is None:
                return place, place
            # The closing tag or another call should follow.
            following = _SPACE.match(text, place).end()  # type: ignore[union-attr]
            if self._closing.startswith(text[following:]) or following == len(text):
                complete = text.startswith(self._closing, following)
                return (following, following + len(self._closing)) if complete else None
            if text.startswith(self._closing, following):
                return following, following + len(self._closing)
            other = re.compile(r"[\s;,]*").match(text, place).end()  # type: ignore[union-attr]
            if other == len(text):
                return None
            if text[other] not in "{[":
                return self._plain(text)
            if is_undecided(text, other):
                return None
            self._brackets = Brackets(other, python=is_python(text, other))

    def _opening(self, text: str) -> int | None:
        """The position of the bracket that encloses the calls; -1 if there is none, None if it may still come."""
        place = _SPACE.match(text, self._start).end()  # type: ignore[union-attr]
        if self._tag in ("<function=", "<function name="):
            header = text.find(">", place)
            if header < 0:
                return None
            place = _SPACE.match(text, header + 1).end()  # type: ignore[union-attr]
        elif self._tag == "[TOOL_CALLS]" and place < len(text) and text[place] not in "{[":
            place = _BEFORE_ARGUMENTS.match(text, place).end()  # type: ignore[union-attr]
            if place < len(text) and text[place] == "[" and _unfinished(text[place:], (*INNER_MARKS, self._tag)):
                return None
            if text.startswith(self._tag, place):
                return -1
        elif self._tag in ("<｜tool▁call▁begin｜>", "<|tool_call_begin|>"):
            first = re.compile(r"\{|" + re.escape(self._closing or "")).search(text, place)
            return None if first is None else first.start() if first[0] == "{" else -1
        if place == len(text) or is_undecided(text, place):
            return None
        return place if text[place] in "{[" else -1

    def _plain(self, text: str) -> tuple[int, int] | None:
        """The end at the first closing tag, which in element notation must follow another tag or null."""
        if self._tag == "[TOOL_CALLS]":
            place = text.find(self._tag, self._start)
            return (place, place) if place >= 0 else None
        if self._closing is None:
            return None
        before = _BEFORE_CLOSING.get(self._tag or "")
        if before is not None and self._tag not in WITH_TAG and not _ELEMENT.match(text, self._start):
            before = None
        position = self._searched
        while (place := text.find(self._closing, position)) >= 0:
            if before is None or before.search(text[max(0, place - 200) : place]):
                return place, place + len(self._closing)
            position = place + 1
        # The next search starts where an incomplete closing tag could begin.
        self._searched = max(self._searched, len(text) - len(self._closing))
        return None

    def _quoted(self, text: str) -> tuple[int, int] | None:
        """The end of calls whose strings are between quotation marks of several characters (Gemma 4)."""
        for mark in _QUOTED_MARKS.finditer(text, self._searched):
            self._searched = mark.end()
            if mark[0] != self._closing:
                self._in_string = not self._in_string
            elif not self._in_string:
                return mark.start(), mark.end()
        # The next search starts where an incomplete mark could begin.
        self._searched = max(self._searched, len(text) - len(self._closing or "") + 1)
        return None


def _unfinished(text: str, marks: Iterable[str]) -> bool:
    return any(mark.startswith(text) and mark != text for mark in marks)
