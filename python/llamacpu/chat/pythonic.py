"""Calls in Python's notation, `[f(a=1, b="x"), g()]`, read by a parser of their own: nothing of them is ever run.

Values are Python's or JSON's literals. Names may be what Python would not let them be: keywords, and `get-x`.
"""

from __future__ import annotations

import ast
import json
import re
from typing import Any

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\s()\[\]{},\"'=:*;]+")
_PRINT = re.compile(r"print\(\s*(?=[^\s()\[\]{},\"'=:*;]+\()")
_NUMBER = re.compile(r"[+-]?(?:0[xXoObB][\da-fA-F_]+|(?:\d[\d_]*\.?[\d_]*|\.\d[\d_]*)(?:[eE][+-]?\d+)?)")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|\'\'\'(?:[^\\]|\\.)*?\'\'\'|"(?:[^"\\\n]|\\.)*"|\'(?:[^\'\\\n]|\\.)*\'', re.DOTALL
)
_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_LARGEST = 1.7976931348623157e308


def finite(text: str) -> float:
    """A number as the nearest one that JSON can hold: `1e999` is the largest, not infinity."""
    return max(-_LARGEST, min(_LARGEST, float(text)))


_STRINGS = json.JSONDecoder(strict=False)


class _Reader:
    """Reads from a position on; ValueError where the text is something else."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def space(self) -> str:
        """Skip white space; the next letter, "" at the end."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.text[self.position : self.position + 1]

    def take(self, letter: str) -> bool:
        """Whether the letter comes next; if so, it is skipped."""
        if self.space() != letter:
            return False
        self.position += 1
        return True

    def match(self, pattern: re.Pattern[str]) -> str:
        self.space()
        found = pattern.match(self.text, self.position)
        if found is None or not found[0]:
            raise ValueError("not a call")
        self.position = found.end()
        return found[0]

    def expect(self, letter: str) -> None:
        if not self.take(letter):
            raise ValueError(f"{letter} was expected")

    def call(self) -> tuple[str, dict[str, Any]]:
        name = self.match(_NAME)
        self.expect("(")
        arguments: dict[str, Any] = {}
        while not self.take(")"):
            key = self.match(_NAME)
            self.expect("=")
            if key in arguments:
                raise ValueError(f"{key} is given twice")
            arguments[key] = self.value()
            if self.space() != ")":
                self.expect(",")
        # brave_search.call(query="...")
        return (name.removesuffix(".call") or name), arguments

    def value(self) -> Any:
        letter = self.space()
        if letter in ('"', "'"):
            return self.string()
        if letter == "[":
            return self.sequence("]")[0]
        if letter == "(":
            values, commas = self.sequence(")")
            return values[0] if len(values) == 1 and not commas else values
        if letter == "{":
            return self.mapping()
        if letter in "+-.0123456789" and letter:
            return _number(self.match(_NUMBER))
        word = self.match(_NAME)
        if word not in _WORDS:
            raise ValueError(f"{word} is not a literal value")
        return _WORDS[word]

    def string(self) -> str:
        if self.text[self.position] == '"' and not self.text.startswith('"""', self.position):
            try:
                value, self.position = _STRINGS.raw_decode(self.text, self.position)
                return str(value)
            except ValueError:
                pass  # escapes that are Python's
        return str(ast.literal_eval(self.match(_STRING)))

    def sequence(self, end: str) -> tuple[list[Any], bool]:
        """The values up to the closing bracket, and whether there was a comma."""
        self.position += 1
        values: list[Any] = []
        comma = False
        while not self.take(end):
            values.append(self.value())
            if self.space() != end:
                self.expect(",")
                comma = True
        return values, comma

    def mapping(self) -> dict[str, Any]:
        self.position += 1
        found: dict[str, Any] = {}
        while not self.take("}"):
            if self.space() not in ('"', "'") or not self.space():
                raise ValueError("a key is not a text")
            key = self.string()
            self.expect(":")
            found[key] = self.value()
            if self.space() != "}":
                self.expect(",")
        return found


def _number(text: str) -> int | float:
    if re.search(r"[.eE]", text) and not re.match(r"[+-]?0[xX]", text):
        return finite(text)
    if re.match(r"[+-]?0[xXoObB]", text):
        # Python writes no larger number in decimal, as JSON wants it.
        return int(str(int(text, 0)))
    return int(text)


def read_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Calls one after the other, each as it is or in `print(...)`. ValueError for anything else."""
    reader = _Reader(text)
    found = []
    try:
        while reader.space():
            printed = _PRINT.match(text, reader.position)
            reader.position = printed.end() if printed else reader.position
            found.append(reader.call())
            if printed:
                reader.expect(")")
            reader.take(";")
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a call") from error
    return found


def read_call(text: str) -> tuple[str, dict[str, Any]]:
    """One call, its name and arguments. ValueError for anything else."""
    reader = _Reader(text)
    try:
        found = reader.call()
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a call") from error
    if reader.space():
        raise ValueError("something follows the call")
    return found
