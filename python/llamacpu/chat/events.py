"""What an answer is taken apart into: pieces of text, and tool calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["Event", "Piece", "ToolCall"]


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
