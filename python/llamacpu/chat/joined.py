"""Joins adjacent pieces of an answer, and keeps the white space around calls once."""

from __future__ import annotations

from llamacpu.chat.events import Event, Piece

__all__ = ["Joined"]


class Joined:
    """Joins the pieces of an answer.

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

    def add(self, events: list[Event], more: list[Event]) -> None:
        """Append the events in `more` to `events`, joining adjacent pieces of the same kind."""
        for event in more:
            if isinstance(event, Piece):
                if not event.text:
                    continue
                if event.kind == "content":
                    event = self._content(event)
                last = events[-1] if events else None
                if isinstance(last, Piece) and last.kind == event.kind:
                    events[-1] = Piece(event.kind, last.text + event.text)
                    continue
            else:
                self._apart = True
            events.append(event)

    def _content(self, piece: Piece) -> Piece:
        if self._apart and self._any_content and not piece.text[0].isspace():
            piece = Piece("content", (self._before or self._behind) + piece.text)
        self._any_content, self._apart, self._before, self._behind = True, False, "", ""
        return piece
