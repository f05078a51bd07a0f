"""The events that an answer is split into: pieces of text and tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

__all__ = ["Event", "Piece", "Reader", "ToolCall"]


class Piece(NamedTuple):
    """A piece of the answer's text."""

    kind: Literal["content", "reasoning"]
    text: str


@dataclass(frozen=True)
class ToolCall:
    """A complete tool call; `arguments` is JSON text, `id` nine letters and digits, as Mistral's templates require."""

    index: int
    id: str
    name: str
    arguments: str


Event = Piece | ToolCall


class Reader(Protocol):
    """Splits an answer into events while it is being generated."""

    def push(self, text: str) -> list[Event]:
        """Add text and return the events that are now certain."""

    def finish(self) -> list[Event]:
        """End the answer and return the events held back so far."""
