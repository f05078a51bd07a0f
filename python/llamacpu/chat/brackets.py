"""Finds the end of bracketed expressions in text that arrives in pieces, respecting strings and escapes."""

from __future__ import annotations

import re

_JSON = re.compile(r'["\[\]{}]')
_PYTHON = re.compile(r"[\"'\[\](){}]")
_ENDS = {quote: re.compile(rf"{quote}|\\") for quote in "\"'"}


class Brackets:
    """Finds the end of the expression that begins at `start`, in time linear in the length of the text.

    python: single quotes also enclose strings, and parentheses count as brackets.
    """

    def __init__(self, start: int = 0, python: bool = False) -> None:
        self.depth: int = 0
        self._position = start
        self._found: int | None = None
        self._quote = ""
        self._marks = _PYTHON if python else _JSON

    def end(self, text: str) -> int | None:
        """The position after the closing bracket, given the whole text so far; None while the expression is open."""
        while self._found is None and self.step(text):
            if self.depth <= 0 and not self._quote and text[self._position - 1] in ")]}":
                self._found = self._position
        return self._found

    def step(self, text: str) -> bool:
        """Advance past the next bracket or quotation mark; return False at the end of the text."""
        while True:
            found = (_ENDS[self._quote] if self._quote else self._marks).search(text, self._position)
            if found is None:
                self._position = len(text)
                return False
            mark = found[0]
            if mark == "\\":
                if found.end() == len(text):
                    self._position = found.start()
                    return False
                self._position = found.end() + 1
                continue
            self._position = found.end()
            if self._quote:
                self._quote = ""
            elif mark in "\"'":
                self._quote = mark
            else:
                self.depth += 1 if mark in "[{(" else -1
            return True


def is_python(text: str, start: int = 0) -> bool:
    """Whether the bracket at `start` opens a list of calls in Python notation rather than JSON."""
    return text[start] == "[" and re.compile(r'\[\s*[^\s{"\]\[]').match(text, start) is not None


def items_of(text: str, python: bool) -> list[str]:
    """The elements of a list, split at its commas."""
    items: list[str] = []
    begin, position = 1, 1
    last = len(text) - 1
    marks = re.compile(r"[\"'\[({,]" if python else r'["\[{,]')
    while position < last:
        found = marks.search(text, position, last)
        if found is None:
            break
        if found[0] == ",":
            items.append(text[begin : found.start()])
            begin = position = found.end()
        elif found[0] in "\"'":
            position = _string_end(text, found.start(), last)
        else:
            position = Brackets(found.start(), python).end(text[:last]) or last
    items.append(text[begin:last])
    return [item.strip() for item in items if item.strip()]


def _string_end(text: str, start: int, last: int) -> int:
    position = start + 1
    while found := _ENDS[text[start]].search(text, position, last):
        if found[0] != "\\":
            return found.end()
        position = found.end() + 1
    return last


def too_deep(text: str, deepest: int, python: bool) -> bool:
    """Whether brackets are nested deeper than `deepest`."""
    brackets = Brackets(python=python)
    while brackets.step(text):
        if brackets.depth > deepest:
            return True
    return False
