"""Lists: the indentation and numbering of their items."""

from __future__ import annotations

import re
from typing import NamedTuple

from rich.style import Style

from llamacpu.cli.drawing.surface import Piece

__all__ = ["Lists"]

_ITEM = re.compile(r"( *)([-*+]|\d{1,9}[.)])(?: +|$)")
_TASK = re.compile(r"\[([ xX])\] +")
_BULLETS = "•◦▪"
_MARKER = Style(bold=True)


class _Item(NamedTuple):
    column: int
    kind: str
    number: int
    width: int
    """Width in cells from the start of the marker to the start of the text."""


class Lists:
    """The open items, from outermost to innermost.

    An item is nested in another if it begins at least two columns further right; stricter rules would break lists as
    models write them.
    """

    def __init__(self) -> None:
        self._open: list[_Item] = []

    def place(self, line: str) -> tuple[list[Piece], list[Piece], str]:
        """What to draw before a line, what to draw before its continuation rows, and the text of the line."""
        match = _ITEM.match(line)
        if match is None:
            indent = self.continued(len(line) - len(line.lstrip(" ")))
            # Leading spaces outside a list are intentional: verse, or ASCII art.
            return indent, indent, line.lstrip(" ") if self._open else line
        spaces, marker = match.groups()
        closed = self._close(len(spaces))
        kind, number = marker[-1], 0
        if marker[0].isdigit():
            number = int(marker[:-1])
            if closed is not None and closed.kind == kind:
                number = closed.number + 1
            drawn = f"{number}{kind} "
        else:
            drawn = _BULLETS[min(len(self._open), len(_BULLETS) - 1)] + " "
        content = line[match.end() :]
        task = _TASK.match(content)
        if task is not None and not marker[0].isdigit():
            drawn = "☐ " if task.group(1) == " " else "☑ "
            content = content[task.end() :]
        before = [Piece(" " * item.width) for item in self._open]
        self._open.append(_Item(len(spaces), kind, number, len(drawn)))
        return [*before, Piece(drawn, _MARKER)], [*before, Piece(" " * len(drawn))], content

    def continued(self, column: int) -> list[Piece]:
        """What to draw before a line that is not an item and begins in `column`; closes items it is not part of."""
        self._close(column)
        return [Piece(" " * item.width) for item in self._open]

    def _close(self, column: int) -> _Item | None:
        closed = None
        while self._open and column < self._open[-1].column + 2:
            closed = self._open.pop()
        return closed
