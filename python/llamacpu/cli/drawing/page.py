"""Where the text of an answer goes: drawn, or as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from llamacpu.cli.terminal import width_of, write

__all__ = ["Page", "Plain", "new_page", "wanted"]


class Page(Protocol):
    """Takes an answer in pieces."""

    def push(self, text: str) -> None:
        """Show more text."""

    def flush(self) -> None:
        """The text ends here: what was held back comes out, the line ends."""


class Plain:
    """Shows the text as it is; on a terminal without control characters."""

    def __init__(self, show: Callable[[str], None] = write) -> None:
        self._show = show
        self._ended = False

    def push(self, text: str) -> None:
        """Show more text."""
        if text:
            self._ended = text.endswith("\n")
            self._show(text)

    def flush(self) -> None:
        """End the line."""
        if not self._ended:
            self._show("\n")
            self._ended = True


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether stdout is a terminal that may be drawn on."""
    dumb = environment.get("TERM", "" if os.name == "nt" else "dumb") in ("dumb", "unknown")
    return sys.stdout.isatty() and not environment.get("NO_COLOR") and not dumb


def new_page(drawn: bool) -> Page:
    """A page for one answer; drawn only where rich is installed."""
    if drawn:
        try:
            from llamacpu.cli.drawing.markdown import Markdown
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("rich", "markdown_it", "pygments"):
                raise
        else:
            return Markdown(lambda text: write(text, drawn=True), lambda: width_of(sys.stdout))
    return Plain()
