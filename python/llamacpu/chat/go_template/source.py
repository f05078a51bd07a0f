"""The text of a template, and errors with their position in it."""

from __future__ import annotations

from llamacpu.errors import TemplateError

__all__ = ["GoTemplateError", "Source"]


class GoTemplateError(TemplateError):
    """A template in Go's notation is invalid, uses an unsupported construct, or fails."""


class Source:
    """The text of a template. name: what error messages call it."""

    def __init__(self, text: str, name: str = "template") -> None:
        self.text = text
        self.name = name

    def error(self, place: int, message: str) -> GoTemplateError:
        """An error with the line and column of an offset in the text."""
        before = self.text[:place]
        line, column = before.count("\n") + 1, place - (before.rfind("\n") + 1) + 1
        return GoTemplateError(f"the {self.name}, line {line}, column {column}: {message}")
