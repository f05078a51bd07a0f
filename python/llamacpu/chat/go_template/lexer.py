"""Splits a template into tokens, by the rules of Go's text/template (https://pkg.go.dev/text/template)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from typing import NamedTuple

from llamacpu.chat.go_template.source import Source

__all__ = ["Token", "tokens"]

LEFT, RIGHT = "{{", "}}"
_SPACES = " \t\r\n"
_KINDS = re.compile(
    r"""
      (?P<space>[ \t\r\n]+)
    | (?P<declare>:=) | (?P<assign>=) | (?P<pipe>\|) | (?P<comma>,) | (?P<open>\() | (?P<close>\))
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<raw>`[^`]*`)
    | (?P<character>'(?:[^'\\\n]|\\.)+')
    | (?P<variable>\$\w*)
    | (?P<number>[+-]?(?:\d|\.\d)(?:[eEpP][+-]|[\w.])*)
    | (?P<field>\.[^\W\d]\w*)
    | (?P<dot>\.)
    | (?P<word>[^\W\d]\w*)
    """,
    re.VERBOSE,
)
# What may follow a word, field, variable or number without a space.
_ENDED = re.compile(r"[ \t\r\n.,|:()=]|-?\}\}|$")


class Token(NamedTuple):
    """A token of a template. kind: "text", "left", "right", "end", or the name of a group in `_KINDS`."""

    kind: str
    text: str
    place: int


def tokens(source: Source) -> Iterator[Token]:
    """Yield the tokens of a template without comments and trimmed space. Raises GoTemplateError for invalid text."""
    text, place = source.text, 0
    while True:
        start = text.find(LEFT, place)
        if start < 0:
            break
        trimmed = text[start + 2 : start + 3] == "-" and text[start + 3 : start + 4] in tuple(_SPACES)
        before = text[place:start]
        if before := before.rstrip(_SPACES) if trimmed else before:
            yield Token("text", before, place)
        begin = start + 2 + (2 if trimmed else 0)
        comment = _comment(source, start, begin)
        if comment is None:
            yield Token("left", LEFT, start)
            place = yield from _inside(source, start, begin)
        else:
            place = comment
    if text[place:]:
        yield Token("text", text[place:], place)
    yield Token("end", "", len(text))


def _comment(source: Source, start: int, begin: int) -> int | None:
    """Where the text after a comment begins; None if there is no comment."""
    text = source.text
    if not text.startswith("/*", begin):
        return None
    end = text.find("*/", begin + 2)
    if end < 0:
        raise source.error(start, "a comment is not closed; expected */")
    behind = _closed(text, end + 2)
    if behind is None:
        raise source.error(end, "a comment ends before its action does; expected */ and }}")
    return behind


def _closed(text: str, place: int) -> int | None:
    """Where the text after an action begins; None if the action is not closed here."""
    if text.startswith(RIGHT, place):
        return place + 2
    if text[place : place + 1] in tuple(_SPACES) and text.startswith("-" + RIGHT, place + 1):
        behind = place + 4
        while text[behind : behind + 1] in tuple(_SPACES):
            behind += 1
        return behind
    return None


def _inside(source: Source, start: int, place: int) -> Generator[Token, None, int]:
    """Yield the tokens of an action; returns where the text after it begins."""
    text, depth = source.text, 0
    while True:
        closed = _closed(text, place)
        if closed is not None:
            if depth:
                raise source.error(place, "a parenthesis is not closed; expected )")
            yield Token("right", RIGHT, place)
            return closed
        match = _KINDS.match(text, place)
        if match is None:
            found = text[place : place + 1]
            if not found:
                raise source.error(start, "an action is not closed; expected }}")
            quoted = {'"': "a text", "`": "a raw text", "'": "a character"}
            if found in quoted:
                raise source.error(place, f"{quoted[found]} is not closed; expected {found}")
            raise source.error(place, f"unexpected {found!r}")
        kind, end = str(match.lastgroup), match.end()
        if kind == "space":
            # The last space before -}} belongs to the closing delimiter.
            if text.startswith("-" + RIGHT, end):
                end -= 1
            if end == place:
                continue
        elif kind in ("word", "field", "variable", "number") and not _ENDED.match(text, end):
            raise source.error(end, f"unexpected {text[end]!r} after {text[place:end]}")
        depth += (kind == "open") - (kind == "close")
        if depth < 0:
            raise source.error(place, "a parenthesis is closed that was not opened")
        yield Token(kind, text[place:end], place)
        place = end
