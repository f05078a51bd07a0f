"""Markdown on a terminal while it is being written: headings, bold, code, lists.

Only what can be told from a few characters is drawn; everything else comes out as it is, and at once. How the text
is cut into pieces changes nothing.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping

_BOLD, _CODE, _DIM, _PLAIN = "\x1b[1m", "\x1b[36m", "\x1b[2m", "\x1b[0m"
_FENCE = "```"
_HEADING = re.compile(r"#{1,6}")
_BULLETS = ("-", "*", "+")


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stdout is a terminal that may be drawn on."""
    return sys.stdout.isatty() and "NO_COLOR" not in environment and environment.get("TERM") != "dumb"


class Markdown:
    """Takes text in pieces and writes it with the marks drawn instead of shown.

    Held back are the beginning of a line until it is clear what kind of line it is, and a run of marks until the
    next character.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        """write: where the drawn text goes."""
        self._write = write
        self._out: list[str] = []
        self._line = ""  # the undecided beginning of a line
        self._at_start = True
        self._marks = ""  # a run of * or ` that has not ended
        self._fenced = self._heading = self._bold = self._code = False

    def push(self, text: str) -> None:
        """Draw more text."""
        for character in text:
            if self._at_start:
                self._line += character
                self._begin_line()
            else:
                self._inline(character)
        self._send()

    def flush(self) -> None:
        """The text ends here: what is held back comes out, and the terminal is as it was before."""
        line, self._line = self._line, ""
        self._at_start = False
        for character in line:
            self._inline(character)
        self._end_marks("\n")
        styled = self._heading or self._bold or self._code or self._fenced
        self._fenced = self._heading = self._bold = self._code = False
        self._at_start = True
        if styled:
            self._out.append(_PLAIN)
        self._send()

    def _send(self) -> None:
        if self._out:
            self._write("".join(self._out))
            self._out.clear()

    def _begin_line(self) -> None:
        line = self._line.lstrip(" ")
        indent = self._line[: len(self._line) - len(line)]
        if not line or _FENCE.startswith(line):
            return
        if line.startswith(_FENCE):
            if line.endswith("\n"):
                self._fenced = not self._fenced
                self._out.append(_DIM + indent + line[:-1] + _PLAIN + "\n" + (_CODE if self._fenced else ""))
                self._line = ""
            return
        if not self._fenced:
            if _HEADING.fullmatch(line) or line in _BULLETS:
                return
            if line[-1] == " " and _HEADING.fullmatch(line[:-1]):
                self._heading = True
                self._out.append(indent + _BOLD)
                line = indent = ""
            elif line[-1] == " " and line[:-1] in _BULLETS:
                self._out.append(indent + "• ")
                line = indent = ""
        self._line = ""
        self._at_start = False
        for character in indent + line:
            self._inline(character)

    def _inline(self, character: str) -> None:
        if self._fenced:
            self._out.append(character)
            self._at_start = character == "\n"
            return
        if self._marks and character != self._marks[0]:
            self._end_marks(character)
        if character in "*`":
            self._marks += character
            return
        if character == "\n":
            if self._heading or self._bold or self._code:
                self._out.append(_PLAIN)
            self._heading = self._bold = self._code = False
            self._at_start = True
        self._out.append(character)

    def _end_marks(self, following: str) -> None:
        marks, self._marks = self._marks, ""
        if marks == "`" and (self._code or not following.isspace()):
            self._code = not self._code
        elif marks == "**" and not self._code and (self._bold or not following.isspace()):
            self._bold = not self._bold
        else:
            self._out.append(marks)
            return
        self._out.append(_PLAIN)
        if self._bold or self._heading:
            self._out.append(_BOLD)
        if self._code:
            self._out.append(_CODE)
