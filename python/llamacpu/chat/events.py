"""What an answer is taken apart into: pieces of text, and tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = ["Event", "Piece", "Reader", "ToolCall"]


class Piece(NamedTuple):
    """A stretch of text of the answer."""

    kind: Literal["content", "reasoning"]
    text: str


@dataclass(frozen=True)
class ToolCall:
    """A complete tool call; `arguments` is JSON text, `id` nine letters and digits, as Mistral's templates want."""

    index: int
    id: str
    name: str
    arguments: str


Event = Piece | ToolCall


class Reader(Protocol):
    """Takes an answer apart while it is being written."""

    def push(self, text: str) -> list[Event]:
        """Add text; returns what is certain now."""

    def finish(self) -> list[Event]:
        """The answer ends here; returns what was held back."""
