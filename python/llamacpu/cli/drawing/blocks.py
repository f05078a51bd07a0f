"""Blocks that are drawn as a whole: tables, and lines of code with syntax highlighting."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator

from markdown_it import MarkdownIt
from pygments.lexer import Lexer
from pygments.lexers import get_lexer_by_name
from pygments.util import ClassNotFound
from rich import box
from rich.console import Console
from rich.style import Style
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from llamacpu.cli.drawing.inline import spans
from llamacpu.cli.drawing.surface import PLAIN, Piece

__all__ = ["Code", "table_lines"]

# The only way to break a line in a table cell.
_BREAK = re.compile(r" *<br */?> *", re.IGNORECASE)
_MOST_CODE = 20_000
_tables = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_theme = Syntax.get_theme("ansi_dark")


class Code:
    """A code block that is being written; it gives the pieces of each complete line."""

    def __init__(self, language: str) -> None:
        """language: a name or alias that Pygments knows; code in any other language is not highlighted."""
        self._code = ""
        self._lexer: Lexer | None = None
        with contextlib.suppress(ClassNotFound):
            self._lexer = get_lexer_by_name(language, stripnl=False, ensurenl=True) if language else None

    def line(self, text: str) -> list[Piece]:
        """The pieces of the next line."""
        self._code += text + "\n"
        if self._lexer is None or len(self._code) > _MOST_CODE:
            return [Piece(text)] if text else []
        lines: list[list[Piece]] = [[]]
        for kind, value in self._lexer.get_tokens(self._code):
            style = _theme.get_style_for_token(kind)
            for number, part in enumerate(value.split("\n")):
                if number:
                    lines.append([])
                if part:
                    lines[-1].append(Piece(part, style))
        # Nothing follows the last line end. The check is for lexers that change the text and would lose some of it.
        found = lines[-2] if len(lines) > 1 else []
        return found if "".join(piece.text for piece in found) == text else [Piece(text)] if text else []


def table_lines(rows: list[str], width: int) -> Iterator[str] | None:
    """The styled rows of the screen that show a table; None if the lines are not a table."""
    tokens = _tables.parse("\n".join(rows))
    if not tokens or tokens[0].type != "table_open" or tokens[-1].type != "table_close":
        return None
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, header_style=Style(bold=True))
    cells: list[Text] = []
    justify = "left"
    in_head = True
    for token in tokens:
        if token.type in ("th_open", "td_open"):
            justify = str(token.attrs.get("style", "")).removeprefix("text-align:") or "left"
        elif token.type == "inline":
            cell = Text(justify=justify if justify in ("left", "right", "center") else "left")  # type: ignore[arg-type]
            for piece in spans(token.children or [], PLAIN):
                cell.append(_BREAK.sub("\n", piece.text), piece.style)
            cells.append(cell)
        elif token.type == "tr_close":
            if in_head:
                for cell in cells:
                    table.add_column(cell, overflow="fold", justify=cell.justify or "left")
            else:
                table.add_row(*cells)
            in_head, cells = False, []
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=True, color_system="standard", legacy_windows=False)
    console.print(table)
    return iter([line.rstrip() for line in out.getvalue().splitlines()])
