"""The events of an answer as its reader gets them: neighbouring pieces joined, white space around calls kept once."""

from __future__ import annotations

from llamacpu.chat.events import Event, Piece

__all__ = ["Joined"]


class Joined:
    """Joins the pieces of an answer.

    White space before and behind a call belongs to neither: between two stretches of content what stood before the
    calls is kept, or else what stood behind them, so that their words stay apart.
    """

    def __init__(self) -> None:
        self._any_content = self._apart = False
        self._before = self._behind = ""

    def parted(self, before: str, behind: str) -> None:
        """What ends here stood between this white space; more of that behind it may follow."""
        self._apart = True
        self._before = self._before or before
        self._behind += behind.strip(";,")

    def add(self, events: list[Event], more: list[Event]) -> None:
        """Add what comes next to `events`."""
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
