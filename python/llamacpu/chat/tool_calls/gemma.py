"""Calls as Gemma 4 writes them: ``call:f{city:<|"|>Paris<|"|>,days:3}``."""

from __future__ import annotations

import json
import re
from typing import Any

from llamacpu.chat import pythonic
from llamacpu.chat.tool_calls.call import DEEPEST, LONGEST, Call

__all__ = ["QUOTE", "read_gemma"]

QUOTE = '<|"|>'
"""The quotation mark before and after a string."""

_NAME = re.compile(r"\s*call:\s*([^\s{}]+)\s*(?=\{)")
_KEY = re.compile(r"\s*([^\s:,{}\[\]]+)\s*:")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?![\w.])")
_WORD = re.compile(r"(true|false|null)(?!\w)")
_SPACE = re.compile(r"\s*")
_WORDS = {"true": True, "false": False, "null": None}
_STRINGS = json.JSONDecoder(strict=False)


def read_gemma(text: str) -> list[Call] | None:
    """Parse one or more calls. Keys may be bare or quoted, strings between ``<|"|>`` or as in JSON."""
    if len(text) > LONGEST:
        return None
    calls: list[Call] = []
    position = 0
    try:
        while (header := _NAME.match(text, position)) is not None:
            reader = _Reader(text, header.end())
            calls.append(Call(header[1], reader.mapping(0)))
            position = reader.position
    except ValueError:
        return None
    return calls if calls and not text[position:].strip() else None


class _Reader:
    """A recursive-descent parser with a position in the text; raises ValueError if the text does not match."""

    def __init__(self, text: str, position: int) -> None:
        self.text, self.position = text, position

    def _next(self) -> str:
        """Skip white space and return the next character, or "" at the end."""
        self.position = _SPACE.match(self.text, self.position).end()  # type: ignore[union-attr]
        return self.text[self.position : self.position + 1]

    def _ends(self, closing: str, first: bool) -> bool:
        """Whether the closing bracket follows; otherwise an element does, after a comma if it is not the first."""
        letter = self._next()
        if letter == closing:
            self.position += 1
            return True
        if not first:
            if letter != ",":
                raise ValueError("a comma was expected")
            self.position += 1
        return False

    def mapping(self, depth: int) -> dict[str, Any]:
        self.position += 1
        found: dict[str, Any] = {}
        first = True
        while not self._ends("}", first):
            key = self._key()
            found[key] = self._value(depth + 1)
            first = False
        return found

    def _key(self) -> str:
        self._next()
        if self.text.startswith((QUOTE, '"'), self.position):
            key = self._string()
            if self._next() != ":":
                raise ValueError("a colon was expected")
            self.position += 1
            return key
        return self._match(_KEY)

    def _match(self, pattern: re.Pattern[str]) -> str:
        found = pattern.match(self.text, self.position)
        if found is None:
            raise ValueError("not a call")
        self.position = found.end()
        return found[found.lastindex or 0]

    def _string(self) -> str:
        if not self.text.startswith(QUOTE, self.position):
            value, self.position = _STRINGS.raw_decode(self.text, self.position)
            return str(value)
        begin = self.position + len(QUOTE)
        end = self.text.index(QUOTE, begin)
        self.position = end + len(QUOTE)
        return self.text[begin:end]

    def _value(self, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError("too deeply nested")
        letter = self._next()
        if letter == "{":
            return self.mapping(depth)
        if letter == "[":
            self.position += 1
            values: list[Any] = []
            while not self._ends("]", not values):
                values.append(self._value(depth + 1))
            return values
        if letter == '"' or self.text.startswith(QUOTE, self.position):
            return self._string()
        if letter in ("t", "f", "n"):
            return _WORDS[self._match(_WORD)]
        number = self._match(_NUMBER)
        return pythonic.finite(number) if re.search(r"[.eE]", number) else int(number)
