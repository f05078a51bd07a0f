"""Rows of a terminal: words that do not fit wrap to the next row, and a preview of pending text can be erased."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from rich.cells import cell_len
from rich.color import ColorSystem
from rich.style import Style

__all__ = ["CLOSING", "DIM", "PLAIN", "Piece", "Surface", "clusters"]

PLAIN = Style()
DIM = Style(dim=True)
_JOINER = "\u200d"
# A row must not begin with these: they belong to the preceding word.
CLOSING = "、。，．！？：；）」』】〉》”’…ー"  # noqa: RUF001


class Piece(NamedTuple):
    """Text in one style, with the address that it links to, if any."""

    text: str
    style: Style = PLAIN
    link: str | None = None


class Surface:
    """A writer of pieces that tracks the cursor's column by counting, without querying the terminal."""

    def __init__(self, write: Callable[[str], None], width: Callable[[], int]) -> None:
        """write: called with the output. width: returns the number of columns of the terminal, which may change."""
        self._write = write
        self._width = width
        self._columns = max(width(), 2)
        self._column = 0
        self._indent: list[Piece] = []
        self._indent_width = 0
        self._gap: list[Piece] = []
        self._word: list[Piece] = []
        self._out: list[str] = []
        self._previewed = 0

    @property
    def columns(self) -> int:
        """The current number of columns of the terminal."""
        columns = max(self._width(), 2)
        if columns < self._columns:
            self._column %= columns  # terminals wrap the row or cut it off
        self._columns = columns
        return columns

    def begin(self, first: Iterable[Piece] = (), rest: Iterable[Piece] = ()) -> None:
        """Begin a line of text, with `first` before it and `rest` before its continuation rows."""
        room = self.columns // 2
        self._indent = _cropped(rest, room)
        self._indent_width = sum(cell_len(piece.text) for piece in self._indent)
        self._put(_cropped(first, room))

    def add(self, pieces: Iterable[Piece]) -> None:
        """Add text, wrapped between words and around wide characters."""
        for piece in pieces:
            for cluster in clusters(piece.text):
                part = piece._replace(text=cluster)
                if cluster.isspace():
                    self._place()
                    self._gap.append(part)
                    continue
                if self._word and _breaks(self._word[-1].text, cluster):
                    self._place()
                self._word.append(part)
        self._place()

    def verbatim(self, pieces: Iterable[Piece]) -> None:
        """Add text that the terminal itself wraps at its edge, so that copied code keeps its lines."""
        self._put(pieces)

    def styled(self, text: str) -> None:
        """Add a row that is already styled; a line end must follow."""
        self._erase()
        self._out.append(text)

    def end_line(self) -> None:
        """End the line; the next text begins a new row."""
        self._gap.clear()
        self._erase()
        self._out.append("\n")
        self._column = 0

    def preview(self, text: str) -> None:
        """Show as much of the end of a text as fits in the row, until something else is written."""
        self._erase()
        room = self.columns - 1 - self._column - sum(cell_len(piece.text) for piece in self._gap)
        shown, used = [], 0
        for cluster in reversed(clusters(text)):
            used += cell_len(cluster)
            if used > room:
                used -= cell_len(cluster)
                break
            shown.append(cluster)
        if shown and used:
            gap = "".join(piece.text for piece in self._gap)
            self._out.append(gap + DIM.render("".join(reversed(shown)), color_system=ColorSystem.STANDARD))
            self._previewed = used + cell_len(gap)

    def send(self) -> None:
        """Write the output collected so far."""
        if self._out:
            self._write("".join(self._out))
            self._out.clear()

    def _place(self) -> None:
        """Put the word after the gap, or on the next row."""
        if not self._word:
            return
        columns = self.columns
        width = sum(cell_len(piece.text) for piece in self._word)
        gap = sum(cell_len(piece.text) for piece in self._gap)
        if self._column + gap + width > columns and self._column > self._indent_width:
            self._next_row()
        else:
            self._put(self._gap)
        self._gap.clear()
        if self._column + width <= columns:
            self._put(self._word)
        else:
            for piece in self._word:
                if self._column + cell_len(piece.text) > columns and self._column > self._indent_width:
                    self._next_row()
                self._put([piece])
        self._word.clear()

    def _next_row(self) -> None:
        self._erase()
        self._out.append("\n")
        self._column = 0
        self._put(self._indent)

    def _put(self, pieces: Iterable[Piece]) -> None:
        self._erase()
        for piece in _merged(pieces):
            text = piece.style.render(piece.text, color_system=ColorSystem.STANDARD)
            if piece.link is not None:
                text = f"\x1b]8;;{piece.link}\x1b\\{text}\x1b]8;;\x1b\\"
            self._out.append(text)
            self._column += cell_len(piece.text)

    def _erase(self) -> None:
        if self._previewed:
            self._out.append(f"\x1b[{self._previewed}D\x1b[K")
            self._previewed = 0


def clusters(text: str) -> list[str]:
    """The characters of a text, each with its combining characters."""
    found: list[str] = []
    for character in text:
        joined = found and (found[-1].endswith(_JOINER) or (not character.isspace() and cell_len(character) == 0))
        if joined and not found[-1].isspace():
            found[-1] += character
        else:
            found.append(character)
    return found


def _breaks(before: str, after: str) -> bool:
    """Whether a row may end between two characters that no space separates."""
    return (cell_len(before) > 1 or cell_len(after) > 1) and after[0] not in CLOSING


def _merged(pieces: Iterable[Piece]) -> Iterable[Piece]:
    last: Piece | None = None
    for piece in pieces:
        if last is not None and piece[1:] == last[1:]:
            last = last._replace(text=last.text + piece.text)
            continue
        if last is not None:
            yield last
        last = piece
    if last is not None:
        yield last


def _cropped(pieces: Iterable[Piece], room: int) -> list[Piece]:
    """As much of the pieces before a line as fits in `room` cells, which leaves space for the line itself."""
    kept = []
    for piece in pieces:
        text = piece.text
        while cell_len(text) > room:
            text = text[:-1]
        room -= cell_len(text)
        kept.append(piece._replace(text=text))
    return kept
