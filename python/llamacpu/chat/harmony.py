"""Answers in channels, as gpt-oss writes them (OpenAI's "harmony" format).

<|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final<|message|>...<|return|>
<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from llamacpu.chat.events import Event, Piece
from llamacpu.chat.found_calls import CODE_TOOLS
from llamacpu.chat.messages import MESSAGE, MessageReader
from llamacpu.chat.tool_calls import read_arguments

__all__ = ["HarmonyReader"]

_CHANNEL = re.compile(r"<\|channel\|>\s*(\w+)")
_RECIPIENT = re.compile(r"to=([^\s<]+)")
# What a header may begin with after a prompt that ends with the role.
_HEADERS = ("<|channel|>", "<|start|>", "to=")
# Anything longer is not a header.
_LONGEST_HEADER = 1000


class HarmonyReader(MessageReader):
    """Splits an answer in channels while it is being generated, with the same methods as `AnswerReader`.

    tools      names of the available functions; with None, calls stay in the text
    reasoning  whether the "analysis" channel is separated from the content
    begun      whether the prompt ends in the middle of the content
    """

    ends: tuple[str, ...] = ("<|end|>", "<|call|>", "<|return|>", "<|start|>")

    def __init__(self, tools: Iterable[str] | None = None, *, reasoning: bool = True, begun: bool = False) -> None:
        super().__init__(reasoning)
        self._tools = None if tools is None else frozenset(tools)
        self._recipient = ""
        self._kind = "content" if begun else "header"

    def _header(self, final: bool) -> list[Event] | None:
        text = self._held[self._place : self._place + _LONGEST_HEADER].lstrip()
        if not text:
            return None
        place = self._held.find(MESSAGE, self._place, self._place + _LONGEST_HEADER)
        begun = any(text.startswith(mark) or mark.startswith(text) for mark in _HEADERS)
        if place < 0 and begun and not final and len(text) < _LONGEST_HEADER:
            return None
        if place < 0 or not begun:
            if final and begun:
                # A truncated header is of no use.
                self._place = len(self._held)
                return None
            return self._as_text()
        header, self._place = self._held[self._place : place], place + len(MESSAGE)
        channel, recipient = _CHANNEL.search(header), _RECIPIENT.search(header)
        if recipient is not None and self._tools is not None:
            self._kind, self._recipient = "call", recipient[1].removeprefix("functions.")
        else:
            is_thought = channel is not None and channel[1] == "analysis"
            self._kind = "reasoning" if is_thought else "content"
        return []

    def _call(self, body: str) -> list[Event]:
        name, arguments = self._recipient, read_arguments(body)
        if arguments is None and name in CODE_TOOLS:
            arguments = {"code": body}
        return [Piece("content", body)] if arguments is None else [self._made(name, arguments)]
