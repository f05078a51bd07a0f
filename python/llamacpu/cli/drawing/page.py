"""Output of an answer's text, rendered or as it is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Protocol

from llamacpu.cli.terminal import width_of, write

__all__ = ["Page", "Plain", "new_page", "wanted"]


class Page(Protocol):
    """The interface for showing an answer that arrives in pieces."""

    def push(self, text: str) -> None:
        """Show more text."""

    def flush(self) -> None:
        """End the text: show what was held back, and end the line."""


class Plain:
    """A page that shows the text as it is, on a terminal without control characters."""

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
    """Whether stdout is a terminal that supports rendered output and NO_COLOR is not set."""
    dumb = environment.get("TERM", "" if os.name == "nt" else "dumb") in ("dumb", "unknown")
    return sys.stdout.isatty() and not environment.get("NO_COLOR") and not dumb


def new_page(drawn: bool) -> Page:
    """A page for one answer; Markdown is rendered only if rich is installed."""
    if drawn:
        try:
            from llamacpu.cli.drawing.markdown import Markdown
        except ImportError as error:
            if (error.name or "").partition(".")[0] not in ("rich", "markdown_it", "pygments"):
                raise
        else:
            return Markdown(lambda text: write(text, drawn=True), lambda: width_of(sys.stdout))
    return Plain()
