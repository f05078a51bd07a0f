"""A running answer as responses of the OpenAI API: one, or chunks as they come, or chunks for an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from llamacpu.answers.reading import Answer, Event
    from llamacpu.answers.running import RunningAnswer
    from llamacpu.generation import GeneratedToken

__all__ = ["Shape", "async_chunks", "chunks", "whole"]

Response = dict[str, Any]


class Shape(Protocol):
    """What responses look like: `ChatShape`, `TextShape`."""

    def whole(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> Response: ...
    def begin(self) -> list[Response]: ...
    def chunk(self, event: Event, tokens: Sequence[GeneratedToken]) -> Response: ...
    def end(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> list[Response]: ...
    def usage(self, answer: Answer) -> Response: ...


def whole(running: RunningAnswer, shape: Shape) -> Response:
    """Runs to the end and returns the one response."""
    return shape.whole(running.read(), running.reading.taken())


def chunks(running: RunningAnswer, shape: Shape, usage: bool = False) -> Iterator[Response]:
    """Yields the chunks as they come; closes the answer when it is left.

    usage: whether a last chunk without choices tells how many tokens prompt and answer have.
    """
    with running:
        yield from shape.begin()
        for event in running:
            yield shape.chunk(event, running.reading.taken())
        yield from shape.end(running.answer, running.reading.taken())
        if usage:
            yield shape.usage(running.answer)


async def async_chunks(running: RunningAnswer, shape: Shape, usage: bool = False) -> AsyncIterator[Response]:
    """As `chunks`, without blocking the event loop."""
    with running:
        for response in shape.begin():
            yield response
        async for event in running:
            yield shape.chunk(event, running.reading.taken())
        for response in shape.end(running.answer, running.reading.taken()):
            yield response
        if usage:
            yield shape.usage(running.answer)
