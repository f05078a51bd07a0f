"""How what was generated becomes an answer: content, reasoning, tool calls, and why it ended."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llamacpu.chat.events import Event, Piece, Reader, ToolCall

if TYPE_CHECKING:
    from llamacpu.generation import GeneratedToken, GenerationResult, Timings
    from llamacpu.generation.result import FinishReason
    from llamacpu.sampling import TokenLogProbability

__all__ = ["Answer", "Event", "Piece", "Reading", "ToolCall"]


@dataclass(frozen=True)
class Answer:
    """A finished answer.

    content         the text for the reader
    reasoning       what the model thought before it, where the two are told apart; else empty
    tool_calls      in their order
    finish_reason   "stop", "length", "tool_calls", "cancelled" or "timeout"
    result          how the generation went: text as it was generated, tokens, log-probabilities, timings
    """

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason | Literal["tool_calls"]
    result: GenerationResult

    @property
    def log_probabilities(self) -> tuple[TokenLogProbability, ...] | None:
        """Of every token; None where they were not asked for."""
        return self.result.log_probabilities

    @property
    def timings(self) -> Timings:
        """How long everything took."""
        return self.result.timings


class Reading:
    """Takes an answer apart while it is being written, and puts it together at its end. For one answer.

    Whoever runs the steps calls `note` with every token, `push` with every piece of text, and `finish` at the end.
    reader: what tells content, reasoning and calls apart; None takes all text for content.
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self._reader = reader
        self._tokens: list[GeneratedToken] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []

    def note(self, token: GeneratedToken) -> None:
        """A token was chosen."""
        self._tokens.append(token)

    def taken(self) -> list[GeneratedToken]:
        """The tokens since the last call."""
        found, self._tokens = self._tokens, []
        return found

    def push(self, text: str) -> list[Event]:
        """A piece of text was generated; returns what is certain now."""
        return self._kept([Piece("content", text)] if self._reader is None else self._reader.push(text))

    def finish(self) -> list[Event]:
        """The text has ended; returns what was held back."""
        return [] if self._reader is None else self._kept(self._reader.finish())

    def answer(self, result: GenerationResult) -> Answer:
        """The whole of it, after `finish`."""
        reason: FinishReason | Literal["tool_calls"] = result.finish_reason
        if self._calls and reason == "stop":
            reason = "tool_calls"
        return Answer("".join(self._content), "".join(self._reasoning), tuple(self._calls), reason, result)

    def _kept(self, events: list[Event]) -> list[Event]:
        for event in events:
            if isinstance(event, ToolCall):
                self._calls.append(event)
            else:
                (self._content if event.kind == "content" else self._reasoning).append(event.text)
        return events
