"""Joins adjacent pieces of an answer, and keeps the white space around calls once."""

from __future__ import annotations

from itertools import groupby

from llamacpu.chat.events import Event, Piece

__all__ = ["Joined", "joined"]


def joined(events: list[Event]) -> list[Event]:
    """Return the events, adjacent pieces of one kind as one."""
    found: list[Event] = []
    for kind, group in groupby(events, lambda event: event.kind if isinstance(event, Piece) else None):
        if kind is None:
            found += group
        else:
            found.append(Piece(kind, "".join(piece.text for piece in group if isinstance(piece, Piece))))
    return found


class Joined:
    """Keeps pieces of content apart.

    White space before and after a call belongs to neither side. Between two pieces of content, the white space before
    the calls is kept, or else that after them, so that words stay separated.
    """

    def __init__(self) -> None:
        self._any_content = self._apart = False
        self._before = self._behind = ""

    def parted(self, before: str, behind: str) -> None:
        """Record the white space before and after something that ends here; more may follow after it."""
        self._apart = True
        self._before = self._before or before
        self._behind += behind.strip(";,")

    def spaced(self, events: list[Event]) -> list[Event]:
        """Return the events, content with the white space that separates it from the content before."""
        found: list[Event] = []
        for event in events:
            if not isinstance(event, Piece):
                self._apart = True
            elif not event.text:
                continue
            elif event.kind == "content":
                event = self._content(event)
            found.append(event)
        return found

    def _content(self, piece: Piece) -> Piece:
        if self._apart and self._any_content and not piece.text[0].isspace():
            piece = Piece("content", (self._before or self._behind) + piece.text)
        self._any_content, self._apart, self._before, self._behind = True, False, "", ""
        return piece
