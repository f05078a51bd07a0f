"""The text of a line: emphasis, code and links, rendered as soon as nothing that follows can change them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.cells import cell_len
from rich.style import Style

from llamacpu.cli.drawing.surface import CLOSING, PLAIN, Piece

__all__ = ["Inline", "pieces_of", "spans"]

_MARKS = re.compile(r"[*_`~\[\]()!<&\\]")
_MOST_HELD = 600
_MOST_TRIES = 40
_STYLES = {"strong": Style(bold=True), "em": Style(italic=True), "s": Style(strike=True)}
_CODE = Style(color="cyan")
_LINK = Style(underline=True)
# Links that a terminal may be told to open; markdown-it has encoded everything but printable ASCII.
_SAFE = re.compile(r"(?:https?://|mailto:)[!-~]{1,2000}", re.IGNORECASE)
_NO_LINKS = ("linux", "vt100", "vt102", "vt220", "ansi", "cons25")

_reader = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough"])


def pieces_of(text: str, base: Style = PLAIN) -> list[Piece]:
    """A line of Markdown as pieces. A link's address is shown after its text unless the text is the address."""
    return spans(_reader.parseInline(text)[0].children or [], base)


def spans(tokens: Sequence[Token], base: Style) -> list[Piece]:
    """The pieces for inline tokens of markdown-it."""
    found: list[Piece] = []
    styles = [base]
    links: list[tuple[str, int]] = []
    for token in tokens:
        kind, _, edge = token.type.rpartition("_")
        href = links[-1][0] if links else None
        if edge == "open":
            if kind == "link":
                links.append((str(token.attrs.get("href", "")), len(found)))
            styles.append(styles[-1] + (_LINK if kind == "link" else _STYLES.get(kind, PLAIN)))
        elif edge == "close":
            styles.pop()
            if kind == "link":
                address, start = links.pop()
                text = "".join(piece.text for piece in found[start:])
                if address.removeprefix("mailto:") != text.removeprefix("mailto:"):
                    found.append(Piece(f" ({address})", styles[-1]))
        elif token.type == "image":
            source = str(token.attrs.get("src", ""))
            found.append(Piece(f"[{token.content}] ({source})", styles[-1]))
        elif token.type == "code_inline":
            found.append(Piece(token.content, styles[-1] + _CODE, _opened(href)))
        elif token.type in ("softbreak", "hardbreak"):
            found.append(Piece(" ", styles[-1]))
        else:
            found.append(Piece(token.content, styles[-1], _opened(href)))
    return [piece for piece in found if piece.text]


def _opened(href: str | None) -> str | None:
    """The address if a terminal may be told to open it, else None."""
    if href is None or not _SAFE.fullmatch(href) or os.environ.get("TERM") in _NO_LINKS:
        return None
    return href


class Inline:
    """A line that is being written: it takes characters and gives pieces."""

    def __init__(self, base: Style = PLAIN) -> None:
        self._base = base
        self._held = ""
        self._marked = False
        self._changed = False
        self._failed = 0

    @property
    def held(self) -> str:
        """The text that has not been released yet."""
        return self._held

    def take(self, character: str) -> list[Piece]:
        """The pieces that the next character makes certain, independently of how the text is split."""
        # Text is released after a space, or before a wide character, which needs no space before it.
        certain = self._come_out() if self._held and _begins_word(self._held[-1], character) else []
        self._held += character
        if _MARKS.match(character):
            self._marked = self._changed = True
        if character.isspace():
            certain += self._come_out()
        if len(self._held) >= _MOST_HELD:
            certain.append(Piece(self._held, self._base))
            self._forget()
        return certain

    def end(self) -> list[Piece]:
        """End the line and return the remaining pieces."""
        found = pieces_of(self._held, self._base) if self._marked else [Piece(self._held, self._base)]
        self._forget()
        return found if found and found[0].text else []

    def _come_out(self) -> list[Piece]:
        if not self._marked:
            found = [Piece(self._held, self._base)]
            self._forget()
            return found
        if not self._changed or self._failed == _MOST_TRIES:
            return []  # an open mark can only be closed by another one
        self._changed = False
        # The parser drops spaces at the end of a line.
        body = self._held.rstrip()
        found = pieces_of(body, self._base)
        certain = _characters(found)
        gap = self._held[len(body) :]
        for end in ["", *_ends(body)]:
            if _characters(pieces_of(f"{body}{gap}x{end}", self._base))[: len(certain)] != certain:
                self._failed += 1
                return []
        found.append(Piece(gap, self._base))
        self._forget()
        return [piece for piece in found if piece.text]

    def _forget(self) -> None:
        self._held = ""
        self._marked = False
        self._failed = 0


def _begins_word(before: str, character: str) -> bool:
    """Whether a row may begin with a character that follows one that is not a space."""
    if ord(character) < 0x1100 or before == "\u200d" or character in CLOSING:
        return False
    modifies = 0x1F3FB <= ord(character) <= 0x1F3FF
    return cell_len(character) > 1 and not modifies


def _ends(text: str) -> list[str]:
    """Strings that could still close something that is open in a text."""
    found = {run for run in re.findall(r"`+|~+", text)}
    for mark in "*_":
        if mark in text:
            found |= {mark, mark * 2, mark * 3}
    if "[" in text:
        found |= {"](x)", "](x)*"}
        if "](" in text:
            found |= {")", '")', ">)", "')"}
    return sorted(found)


def _characters(pieces: list[Piece]) -> list[tuple[str, Style, str | None]]:
    return [(character, piece.style, piece.link) for piece in pieces for character in piece.text]
