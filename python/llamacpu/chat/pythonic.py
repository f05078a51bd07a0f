"""Calls in Python notation, `[f(a=1, b="x"), g()]`, parsed by a dedicated parser: nothing in them is ever executed.

Values are Python or JSON literals. Names may be ones that Python does not allow: keywords, and names such as `get-x`.
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
    """A number as the nearest finite float, which JSON can represent: `1e999` becomes the largest, not infinity."""
    return max(-_LARGEST, min(_LARGEST, float(text)))


_STRINGS = json.JSONDecoder(strict=False)


class _Reader:
    """A recursive-descent parser with a position in the text; raises ValueError if the text does not match."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def space(self) -> str:
        """Skip white space and return the next character, or "" at the end."""
        found = _SPACE.match(self.text, self.position)
        self.position = found.end() if found else self.position
        return self.text[self.position : self.position + 1]

    def take(self, letter: str) -> bool:
        """Skip the character if it comes next; returns whether it did."""
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
                pass  # Python escapes
        return str(ast.literal_eval(self.match(_STRING)))

    def sequence(self, end: str) -> tuple[list[Any], bool]:
        """Read the values up to the closing bracket; returns them and whether there was a comma."""
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
        # Raises ValueError for an integer that Python refuses to convert to decimal, which JSON requires.
        return int(str(int(text, 0)))
    return int(text)


def read_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Read consecutive calls, each bare or inside `print(...)`. Raises ValueError for anything else."""
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
    """Read one call and return its name and arguments. Raises ValueError for anything else."""
    reader = _Reader(text)
    try:
        found = reader.call()
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("not a call") from error
    if reader.space():
        raise ValueError("something follows the call")
    return found
