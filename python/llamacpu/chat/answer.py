"""An answer as it streams in, taken apart: reasoning, text for the reader, and tool calls."""

# ruff: noqa: RUF001 (the bars of DeepSeek tags)

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from llamacpu.chat.tool_calls import Balance, Call, read_any

REASONING_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<thinking>", "</thinking>"))
# Where a stretch with tool calls begins and ends; None: with the answer.
CALL_TAGS: dict[str, str | None] = {
    "<tool_call>": "</tool_call>",
    "<|python_start|>": "<|python_end|>",
    "<|python_tag|>": None,
    "[TOOL_CALLS]": None,
    "<function=": "</function>",
    "<｜tool▁call▁begin｜>": "<｜tool▁call▁end｜>",
}
# Marks around the stretches that say nothing.
_WRAPPERS = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<|python_end|>")
_OBJECT_BEGIN = re.compile(r'\{\s*"(name|type|function|parameters|arguments|id)"')
_LIST_BEGIN = re.compile(r"\[\s*(\{|[A-Za-z_][\w.]*\()")
# A bare object or list that has not shown to be a call within so many characters is text.
_DECIDED = 100
_SPACE = " \t\r\n"
CODE_TOOLS = ("code_interpreter", "python", "ipython")


class Piece(NamedTuple):
    """A stretch of text of the answer."""

    kind: Literal["content", "reasoning"]
    text: str


@dataclass(frozen=True)
class ToolCall:
    """A complete tool call; `arguments` is JSON text, `id` nine letters and digits, as Mistral's templates want."""

    index: int
    id: str
    name: str
    arguments: str


Event = Piece | ToolCall


class AnswerReader:
    """Takes an answer apart while it is being written.

    tools              names of the functions on offer; None: none are, and nothing is taken for a call
    reasoning          whether stretches in reasoning tags are told apart from the content
    begins_reasoning   the prompt has opened the reasoning already
    drop               texts that do not belong to the answer: the control tokens of the vocabulary
    """

    def __init__(
        self,
        tools: Iterable[str] | None = None,
        *,
        reasoning: bool = True,
        begins_reasoning: bool = False,
        drop: Collection[str] = (),
    ) -> None:
        self._tools = None if tools is None else frozenset(tools)
        self._held = ""
        self._after = ""
        self._state = "start"
        self._closing: str | None = None
        self._opening = ""
        self._balance = Balance()
        self._calls = 0
        self._reasoning = reasoning
        if begins_reasoning and reasoning:
            self._state, self._closing = "thought", REASONING_TAGS[0][1]
        known = {tag for pair in REASONING_TAGS for tag in pair} if reasoning else set()
        if self._tools is not None:
            known.update(CALL_TAGS, (close for close in CALL_TAGS.values() if close))
        self._dropped = tuple(
            sorted((set(drop) | set(_WRAPPERS if self._tools else ())) - known, key=len, reverse=True)
        )

    @property
    def calls(self) -> int:
        """How many tool calls have been found."""
        return self._calls

    def push(self, text: str) -> list[Event]:
        """Add text; returns what is certain now."""
        self._held += text
        return self._merged(final=False)

    def finish(self) -> list[Event]:
        """The answer ends here: what is left is text, or a call without its closing mark."""
        return self._merged(final=True)

    def _merged(self, final: bool) -> list[Event]:
        events: list[Event] = []
        while True:
            step = getattr(self, f"_{self._state}")(final)
            if step is None:
                break
            for event in step:
                last = events[-1] if events else None
                if isinstance(event, Piece) and isinstance(last, Piece) and event.kind == last.kind:
                    events[-1] = Piece(event.kind, last.text + event.text)
                else:
                    events.append(event)
        return [event for event in events if isinstance(event, ToolCall) or event.text]

    # Each state looks at the held text and returns events, or None to wait for more.

    def _start(self, final: bool) -> list[Event] | None:
        if self._after:
            # Between reasoning, calls and text there is nothing but white space and separators.
            self._held = self._held.lstrip(self._after)
        text = self._held.lstrip()
        if not text:
            # White space alone: what it belongs to is seen later.
            return self._to_content() if final and self._held else None
        for opening, closing in REASONING_TAGS if self._reasoning else ():
            if text.startswith(opening):
                self._held = text[len(opening) :]
                self._state, self._closing, self._after = "thought", closing, _SPACE
                return []
            if opening.startswith(text) and not final:
                return None
        if self._tools is not None and text[0] in "{[" and not text.startswith("[TOOL"):
            begin = _OBJECT_BEGIN if text[0] == "{" else _LIST_BEGIN
            if begin.match(text):
                self._held, self._state, self._balance = text, "bare", Balance()
                return []
            if len(text) < _DECIDED and not final:
                return None
        if text.startswith("[") and "[TOOL_CALLS]".startswith(text[:12]) and len(text) < 12 and not final:
            return None
        return self._to_content()

    def _to_content(self) -> list[Event]:
        self._state, self._after = "content", ""
        return []

    def _restart(self, skip: str) -> None:
        """Something is complete: what follows, after the letters of `skip`, may be anything again."""
        self._state, self._after = "start", skip

    def _thought(self, final: bool) -> list[Event] | None:
        assert self._closing is not None
        if self._after:
            self._held = self._held.lstrip(self._after)
            self._after = "" if self._held else self._after
        place = self._held.find(self._closing)
        if place >= 0:
            thought, self._held = self._held[:place].rstrip(), self._held[place + len(self._closing) :]
            self._restart(_SPACE)
            return [Piece("reasoning", self._clean(thought))]
        # White space before the closing tag does not belong to the thought.
        stop = len(self._held.rstrip()) if not final else len(self._held)
        if not final:
            stop -= self._unfinished(self._held[:stop], (self._closing, *self._dropped))
            stop = len(self._held[:stop].rstrip())
        thought, self._held = self._held[:stop], self._held[stop:]
        return [Piece("reasoning", self._clean(thought))] if thought else None

    def _bare(self, final: bool) -> list[Event] | None:
        end = self._balance.end(self._held)
        if end is None and not final:
            return None
        calls = read_any(self._held[:end]) if end is not None else None
        if calls is None or not self._known(calls):
            return self._to_content()
        assert end is not None
        self._held = self._held[end:]
        self._restart(_SPACE + ";,")
        return list(self._events(calls))

    def _content(self, final: bool) -> list[Event] | None:
        if not self._held:
            return None
        tags: Collection[str] = () if self._tools is None else CALL_TAGS
        found = [(place, tag) for tag in tags if (place := self._held.find(tag)) >= 0]
        if found:
            place, tag = min(found)
            before = self._held[:place].rstrip()
            self._held = self._held[place + (0 if tag == "<function=" else len(tag)) :]
            self._state, self._opening, self._closing = "call", tag, CALL_TAGS[tag]
            return [Piece("content", self._clean(before))]
        stop = len(self._held)
        if not final:
            stop -= self._unfinished(self._held, (*tags, *self._dropped))
            # White space before a call does not belong to the content.
            stop = len(self._held[:stop].rstrip()) if tags else stop
        ready, self._held = self._held[:stop], self._held[stop:]
        return [Piece("content", self._clean(ready))] if ready else None

    def _call(self, final: bool) -> list[Event] | None:
        closing = self._closing
        place = self._held.find(closing) if closing else -1
        if place < 0 and not final:
            return None
        stop = place if place >= 0 else len(self._held)
        end = stop + (len(closing) if closing and place >= 0 else 0)
        body = self._held[: end if self._opening == "<function=" else stop]
        self._held = self._held[end:]
        self._restart(_SPACE)
        events: list[Event] = []
        for part in body.split(self._opening) if closing is None else [body]:
            calls = read_any(self._clean(part)) or self._code(part)
            if calls is None and part.strip():
                return [*events, Piece("content", self._clean(body))]
            events += self._events(calls or [])
        return events

    def _code(self, text: str) -> list[Call] | None:
        """Python source after ``<|python_tag|>`` is for the code interpreter, where one is on offer."""
        name = next((name for name in CODE_TOOLS if name in (self._tools or ())), None)
        return [Call(name, {"code": text})] if name and self._opening == "<|python_tag|>" and text.strip() else None

    def _known(self, calls: list[Call]) -> bool:
        return self._tools is not None and all(call.name in self._tools for call in calls)

    def _events(self, calls: list[Call]) -> Iterable[ToolCall]:
        for call in calls:
            arguments = json.dumps(call.arguments, ensure_ascii=False)
            yield ToolCall(self._calls, secrets.token_hex(5)[:9], call.name, arguments)
            self._calls += 1

    def _clean(self, text: str) -> str:
        for token in self._dropped:
            text = text.replace(token, "")
        return text

    @staticmethod
    def _unfinished(text: str, tags: Iterable[str]) -> int:
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


def call_tags() -> set[str]:
    """Every mark around tool calls."""
    return {*CALL_TAGS, *(close for close in CALL_TAGS.values() if close), *_WRAPPERS}
