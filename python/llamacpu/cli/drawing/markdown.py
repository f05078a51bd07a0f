"""Markdown, rendered while it is being written.

A line is drawn once its kind is known; its words are then released one by one. As in other chat windows, a line end in
the text is a line end on the screen, even where Markdown would join the lines.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from rich.style import Style

from llamacpu.cli.drawing.inline import Inline
from llamacpu.cli.drawing.lists import Lists
from llamacpu.cli.drawing.surface import DIM, PLAIN, Piece, Surface
from llamacpu.cli.terminal import shown

__all__ = ["Markdown"]

_QUOTES = re.compile(r"(?: {0,3}> ?)+")
_HEADING = re.compile(r" {0,3}(#{1,6})(?: +|$)")
_RULE = re.compile(r" {0,3}([-*_])(?: *\1){2,} *")
_FENCE = re.compile(r" *(`{3,}|~{3,})([^`]*)")
# Beginnings of lines that may still become one of the above, or a list.
_UNDECIDED = re.compile(
    r" *(?:>? *|#{1,6}|[-+*_][-+*_ ]*|[-+*] +\[(?:[ xX](?:\] *)?)?|\d{1,9}[.)]?|`{1,2}|~{1,2}|(?:`{3,}|~{3,}).*)"
)
_DELIMITER = re.compile(r"[|:\- ]*-[|:\- ]*")
_HEADINGS = {1: Style(bold=True, underline=True)}
_BOLD = Style(bold=True)
_BAR = Piece("▌ ", DIM)
_MOST_ROWS = 500


class Markdown:
    """A renderer that takes text in pieces. How the text is split does not affect the result."""

    def __init__(self, write: Callable[[str], None], width: Callable[[], int]) -> None:
        """write: called with the rendered text. width: returns the number of columns of the terminal."""
        self._surface = Surface(write, width)
        self._raw = ""  # the line so far
        self._inline: Inline | None = None  # its text, once its kind is clear
        self._table: list[str] = []
        self._table_quotes = self._table_column = 0
        self._fence: tuple[str, int] | None = None
        self._code: Callable[[str], list[Piece]] | None = None
        self._lists = Lists()
        self._quotes = 0
        self._blank = False
        self._anything = False

    def push(self, text: str) -> None:
        """Draw more text."""
        for character in shown(text):
            self._take(character)
        held = self._raw if self._inline is None else self._inline.held
        self._surface.preview(held.replace("\t", " "))
        self._surface.send()

    def flush(self) -> None:
        """End the text and draw what was held back."""
        if self._raw:
            self._end_line()
        self._draw_table()
        self._surface.preview("")
        if not self._anything:
            self._surface.end_line()
        self._surface.send()

    def _take(self, character: str) -> None:
        if character == "\n":
            self._end_line()
            return
        if character == "\t" and self._fence is None:
            for space in "    ":
                self._take(space)
            return
        self._raw += character
        if self._inline is not None:
            self._surface.add(self._inline.take(character))
        elif self._fence is None:
            self._decide(ended=False)

    def _end_line(self) -> None:
        line, self._raw = self._raw, ""
        if self._inline is not None:
            self._surface.add(self._inline.end())
            self._inline = None
            self._surface.end_line()
        elif self._fence is not None:
            self._code_line(line)
        else:
            self._raw = line
            self._decide(ended=True)
            self._raw = ""

    def _decide(self, ended: bool) -> None:
        """Draw the line, or begin to draw it, if its kind is known."""
        line = self._raw
        match = _QUOTES.match(line)
        quotes = 0 if match is None else match.group().count(">")
        rest = line if match is None else line[match.end() :]
        if not ended and _UNDECIDED.fullmatch(rest):
            return
        if rest.lstrip(" ").startswith("|"):
            if not ended:
                return
            if self._table and quotes != self._table_quotes:
                self._draw_table()
            if not self._table:
                self._table_quotes, self._table_column = quotes, len(rest) - len(rest.lstrip(" "))
            self._table.append(rest.strip())
            if len(self._table) == 2 and not _DELIMITER.fullmatch(self._table[1]):
                self._table, rows = [], self._table
                for row in rows:
                    self._text_line(row, quotes, ended=True)
            elif len(self._table) >= _MOST_ROWS:
                self._draw_table()
            return
        self._draw_table()
        if not rest.strip():
            if ended:
                self._blank = self._anything
            return
        if ended and _RULE.fullmatch(rest):
            self._open(quotes)
            self._surface.verbatim([Piece("─" * max(self._surface.columns - 2 * quotes, 1), DIM)])
            self._surface.end_line()
            return
        fence = _FENCE.fullmatch(rest) if ended else None
        if fence is not None:
            self._begin_code(fence, quotes, rest)
            return
        self._text_line(rest, quotes, ended)

    def _open(self, quotes: int) -> list[Piece]:
        """Begin a line, after a pending blank one. Returns the bars of the quotes that contain the line."""
        if quotes != self._quotes:
            self._lists = Lists()
            self._quotes = quotes
        bars = [_BAR] * min(quotes, 4)
        if self._blank:
            self._surface.end_line()
        self._blank = False
        self._anything = True
        self._surface.begin(bars, bars)
        return bars

    def _text_line(self, rest: str, quotes: int, ended: bool) -> None:
        bars = self._open(quotes)
        heading = _HEADING.match(rest)
        style = PLAIN
        if heading is not None:
            self._lists = Lists()
            style = _HEADINGS.get(len(heading.group(1)), _BOLD)
            content = rest[heading.end() :]
        else:
            marker, indent, content = self._lists.place(rest)
            self._surface.begin(marker, [*bars, *indent])
        self._inline = Inline(style)
        for character in content:
            self._surface.add(self._inline.take(character))
        if ended:
            self._surface.add(self._inline.end())
            self._inline = None
            self._surface.end_line()

    def _begin_code(self, fence: re.Match[str], quotes: int, rest: str) -> None:
        from llamacpu.cli.drawing.blocks import Code

        bars = self._open(quotes)
        marks, words = fence.groups()
        indent = self._lists.continued(len(rest) - len(rest.lstrip(" ")))
        self._fence = (marks, len(rest) - len(rest.lstrip(" ")))
        code = Code(words.split()[0] if words.split() else "")
        self._surface.begin(indent, ())
        self._surface.verbatim([Piece(rest.strip(), DIM)])
        self._surface.end_line()
        self._code = lambda line: [*bars, *indent, *code.line(line)]

    def _code_line(self, line: str) -> None:
        assert self._fence is not None
        assert self._code is not None
        marks, indent = self._fence
        if self._quotes:
            match = _QUOTES.match(line)
            line = line if match is None else line[match.end() :]
        ended = line.strip().startswith(marks) and not line.strip().strip(marks[0])
        line = line[min(indent, len(line) - len(line.lstrip(" "))) :]
        pieces = self._code("" if ended else line)
        if ended:
            pieces.append(Piece(line.strip(), DIM))
            self._fence = self._code = None
        self._surface.verbatim(pieces)
        self._surface.end_line()

    def _draw_table(self) -> None:
        rows, self._table = self._table, []
        if not rows:
            return
        from llamacpu.cli.drawing.blocks import table_lines

        quotes = self._table_quotes
        indent = self._lists.continued(self._table_column)
        room = self._surface.columns - 2 * min(quotes, 4) - sum(len(piece.text) for piece in indent)
        drawn = table_lines(rows, max(room, 8)) if len(rows) > 1 else None
        if drawn is None:
            for row in rows:
                self._text_line(row, quotes, ended=True)
            return
        bars = self._open(quotes)
        for number, line in enumerate(drawn):
            self._surface.begin(indent if number == 0 else [*bars, *indent], ())
            self._surface.styled(line)
            self._surface.end_line()
