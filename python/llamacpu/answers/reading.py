"""Turns generated text into an answer: content, reasoning, tool calls and the finish reason."""

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
    reasoning       the model's reasoning before it, if the two are separated; else empty
    tool_calls      the tool calls in order
    finish_reason   "stop", "length", "tool_calls", "cancelled" or "timeout"
    result          the result of the generation: raw text, tokens, log-probabilities, timings
    """

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: FinishReason | Literal["tool_calls"]
    result: GenerationResult

    @property
    def log_probabilities(self) -> tuple[TokenLogProbability, ...] | None:
        """The log-probabilities of every token; None if they were not requested."""
        return self.result.log_probabilities

    @property
    def timings(self) -> Timings:
        """The timings of the generation."""
        return self.result.timings


class Reading:
    """Splits an answer into events while it is being generated, and assembles it at the end. Usable for one answer.

    The caller that runs the steps calls `note` with every token, `push` with every piece of text, and `finish` at the
    end. reader: separates content, reasoning and calls; with None, all text is content.
    """

    def __init__(self, reader: Reader | None = None) -> None:
        self._reader = reader
        self._tokens: list[GeneratedToken] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._calls: list[ToolCall] = []

    def note(self, token: GeneratedToken) -> None:
        """Record a token that was chosen."""
        self._tokens.append(token)

    def taken(self) -> list[GeneratedToken]:
        """Return the tokens recorded since the last call."""
        found, self._tokens = self._tokens, []
        return found

    def push(self, text: str) -> list[Event]:
        """Add a piece of generated text and return the events that are now certain."""
        return self._kept([Piece("content", text)] if self._reader is None else self._reader.push(text))

    def finish(self) -> list[Event]:
        """End the text and return the events held back so far."""
        return [] if self._reader is None else self._kept(self._reader.finish())

    def answer(self, result: GenerationResult) -> Answer:
        """The complete answer; call it after `finish`."""
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
