"""Where stretches of an answer begin and end that may be tool calls: what tags enclose, and what stands bare."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable

from llamacpu.chat.brackets import Brackets, is_python

CALL_TAGS: dict[str, str | None] = {
    "<tool_call>": "</tool_call>",
    "<|python_start|>": "<|python_end|>",
    "<|python_tag|>": None,
    "[TOOL_CALLS]": None,
    "<function=": "</function>",
    "<function name=": "</function>",
    "<｜tool▁call▁begin｜>": "<｜tool▁call▁end｜>",
    "<|tool_call|>": "<|/tool_call|>",
    "<|START_ACTION|>": "<|END_ACTION|>",
    "Action: ```json": "```",
    "<seed:tool_call>": "</seed:tool_call>",
    "<function_calls>": "</function_calls>",
    "<|tool_call_begin|>": "<|tool_call_end|>",
}
"""Where a stretch with tool calls begins and ends; None: with the calls, or the answer."""
# Marks inside such stretches, and marks around them that say nothing.
INNER_MARKS = ("[ARGS]", "[CALL_ID]", "<｜tool▁sep｜>", "<|tool_call_argument_begin|>")
WRAPPERS = (
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<|python_end|>",
    "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>",
    "<|START_RESPONSE|>",
    "<|END_RESPONSE|>",
)
# The tags that belong to what they open: a call is read with them.
WITH_TAG = ("<function=", "<function name=")

# What begins like a call and has not become one within so many characters is text.
_DECIDED = 100
_KEYS = ('"name"', '"type"', '"function"', '"parameters"', '"arguments"', '"id"', '"tool_name"', '"tool_call_id"')
_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\s()\[\]{},\"'=:]*")
_FENCE = re.compile(r"```(json|tool_call|tool_calls|tool_code|)[ \t]*\r?\n\s*")
_FENCE_BEGUN = re.compile(r"`{1,2}|```[a-z_]{0,10}[ \t]{0,10}(\r?\n?\s{0,100})?")
_RECIPIENT = re.compile(r">>>([^\s>]{1,64})\n")
_RECIPIENT_BEGUN = re.compile(r">{1,3}|>>>[^\s>]{1,64}")
_BEFORE_ARGUMENTS = re.compile(r"\s*[^\s\[\]{}\"'<>]*\s*(?:\[CALL_ID\]\s*\w*\s*)?(?:\[ARGS\]\s*)?")
_PARAMETERS_END = re.compile(r"(</param>|</parameter>|>)\s*$")


def begins_call(text: str, start: int) -> bool | None:
    """Whether the bracket at `start` begins what may be a call without a tag; None where that is to be seen."""
    begun = text[start : start + _DECIDED]
    open_ended = len(text) - start < _DECIDED
    place = _SPACE.match(begun, 1).end()  # type: ignore[union-attr]
    if begun[0] == "[":
        if place < len(begun) and begun[place] == "{":
            place = _SPACE.match(begun, place + 1).end()  # type: ignore[union-attr]
        else:
            end = _NAME.match(begun, place).end()  # type: ignore[union-attr]
            if end == len(begun):
                return None if open_ended else False
            return end > place and begun[end] == "("
    if place == len(begun):
        return None if open_ended else False
    if begun.startswith(_KEYS, place):
        return True
    return None if open_ended and any(key.startswith(begun[place:]) for key in _KEYS) else False


def begins_fence(text: str, start: int) -> int | bool | None:
    """Where the bracket is that may begin a call in the fenced block at `start`; False, or None as above."""
    found = _FENCE.match(text, start)
    if found is None or found.end() == len(text):
        undecided = len(text) - start < _DECIDED and _FENCE_BEGUN.fullmatch(text, start)
        return None if undecided else False
    if text[found.end()] not in "{[":
        return False
    begins = begins_call(text, found.end())
    return found.end() if begins else begins


def recipient_at(text: str, start: int, names: Collection[str]) -> str | bool | None:
    """The function that ``>>>f`` and a line break address at `start` ("all" is the reader); False, or None."""
    found = _RECIPIENT.match(text, start)
    if found is not None:
        return found[1] if found[1] == "all" or found[1] in names else False
    return None if _RECIPIENT_BEGUN.fullmatch(text, start) else False


# White space in the openings below.
_BLANK = r"[ \t\r\n]{0,20}"
_FENCE_LINE = r"```(?:json|tool_calls?|tool_code)?[ \t]{0,10}\r?"
FENCE_OPENING = rf"{_FENCE_LINE}\n{_BLANK}"
FENCED_NAME = rf'\{{{_BLANK}"name"{_BLANK}:{_BLANK}'
FENCED_LIST = rf"\[{_BLANK}"
_ADDRESS = re.compile(r"[^\s>]{1,64}")


class Opening:
    """How calls of certain functions begin: with a text that nothing else begins with.

    first   its first letter
    opens   matches such a text
    begun   matches, as a whole, what may become one

    The last two are regular expressions, in one notation for text and for bytes.
    """

    def __init__(self, first: str, opens: str, begun: str) -> None:
        self.first: str = first
        self.opens: str = opens
        self.begun: str = begun

    @classmethod
    def of_fences(cls, names: Iterable[str]) -> Opening | None:
        """A fenced block that begins with the name of a function, in JSON."""
        written = [json.dumps(name, ensure_ascii=False) for name in names]
        if not written:
            return None
        head = rf"{FENCE_OPENING}(?:{FENCED_LIST})?"
        parts = ["\\{", _BLANK, *'"name"', _BLANK, ":", _BLANK]
        named = "|".join(_nested([*parts, *map(re.escape, name)]) for name in written)
        fence = rf"`{{1,2}}|```[a-z_]{{0,10}}|{_FENCE_LINE}"
        return cls("`", f"{head}{FENCED_NAME}(?:{'|'.join(map(re.escape, written))})", f"(?:{fence}|{head}(?:{named}))")

    @classmethod
    def of_recipients(cls, names: Iterable[str]) -> Opening | None:
        """``>>>`` and the name of a function, on a line of their own."""
        lines = [f">>>{name}\n" for name in names if _ADDRESS.fullmatch(name)]
        if not lines:
            return None
        return cls(">", "|".join(map(re.escape, lines)), "|".join(_nested(map(re.escape, line)) for line in lines))


def _nested(parts: Iterable[str]) -> str:
    """An expression that matches the first parts of a sequence, however many."""
    found = ""
    for part in reversed([*parts]):
        found = f"(?:{part}{found})?"
    return found


class Stretch:
    """The end of a stretch that begins with the held text: of calls after `tag`, or of a bare call where it is None."""

    def __init__(self, tag: str | None, start: int = 0) -> None:
        self._tag = tag
        self._closing = CALL_TAGS.get(tag) if tag is not None else None
        self._start = start
        self._brackets: Brackets | None = None
        self._searched = start

    def end(self, text: str, final: bool) -> tuple[int, int] | None:
        """Where the calls end and where the text goes on; None while that is open. At the end there is an answer."""
        found = self._end(text)
        if found is None and final:
            # No string is respected where brackets or quotation marks do not match.
            place = text.find(self._closing, self._start) if self._closing else -1
            return (place, place + len(self._closing or "")) if place >= 0 else (len(text), len(text))
        return found

    def _end(self, text: str) -> tuple[int, int] | None:
        if self._brackets is None:
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
            # What follows is the closing tag, or another call.
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
        """Where the bracket is that everything of interest is in; -1: there is none, None: it may come."""
        place = _SPACE.match(text, self._start).end()  # type: ignore[union-attr]
        if self._tag in ("<function=", "<function name="):
            header = text.find(">", place)
            if header < 0:
                return None
            place = _SPACE.match(text, header + 1).end()  # type: ignore[union-attr]
        elif self._tag == "[TOOL_CALLS]" and place < len(text) and text[place] not in "{[":
            place = _BEFORE_ARGUMENTS.match(text, place).end()  # type: ignore[union-attr]
            if place < len(text) and text[place] == "[" and _unfinished(text[place:], INNER_MARKS):
                return None
        elif self._tag in ("<｜tool▁call▁begin｜>", "<|tool_call_begin|>"):
            first = re.compile(r"\{|" + re.escape(self._closing or "")).search(text, place)
            return None if first is None else first.start() if first[0] == "{" else -1
        if place == len(text) or is_undecided(text, place):
            return None
        return place if text[place] in "{[" else -1

    def _plain(self, text: str) -> tuple[int, int] | None:
        """The end at the first closing tag, which for elements follows one of theirs."""
        if self._closing is None:
            return None
        position = self._searched
        while (place := text.find(self._closing, position)) >= 0:
            if self._tag not in WITH_TAG or _PARAMETERS_END.search(text[max(0, place - 200) : place]):
                return place, place + len(self._closing)
            position = place + 1
        # A closing tag that is not complete is looked for again.
        self._searched = max(self._searched, len(text) - len(self._closing))
        return None


def is_undecided(text: str, place: int) -> bool:
    """Whether the text ends before it shows what kind of list begins at `place`."""
    return text[place] == "[" and _SPACE.match(text, place + 1).end() == len(text)  # type: ignore[union-attr]


def _unfinished(text: str, marks: Iterable[str]) -> bool:
    return any(mark.startswith(text) and mark != text for mark in marks)


def unfinished(text: str, tags: Iterable[str]) -> int:
    """Length of the longest end of `text` that begins a tag."""
    longest = 0
    for tag in tags:
        if tag[0] not in text[-len(tag) :]:
            continue
        for length in range(min(len(tag) - 1, len(text)), longest, -1):
            if text.endswith(tag[:length]):
                longest = length
                break
    return longest
