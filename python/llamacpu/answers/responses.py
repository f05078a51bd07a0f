"""A running answer as OpenAI API responses: a single one, or a synchronous or asynchronous stream of chunks."""

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
    """The interface of `ChatShape` and `TextShape`, which build the responses."""

    def whole(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> Response: ...
    def begin(self) -> list[Response]: ...
    def chunk(self, event: Event, tokens: Sequence[GeneratedToken]) -> Response: ...
    def end(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> list[Response]: ...
    def usage(self, answer: Answer) -> Response: ...


def whole(running: RunningAnswer, shape: Shape) -> Response:
    """Run to the end and return the complete response."""
    return shape.whole(running.read(), running.reading.taken())


def chunks(running: RunningAnswer, shape: Shape, usage: bool = False) -> Iterator[Response]:
    """Yield the chunks as they are generated; closes the answer when the iteration ends.

    usage: whether to add a last chunk without choices that has the token counts of prompt and answer.
    """
    with running:
        yield from shape.begin()
        for event in running:
            yield shape.chunk(event, running.reading.taken())
        yield from shape.end(running.answer, running.reading.taken())
        if usage:
            yield shape.usage(running.answer)


async def async_chunks(running: RunningAnswer, shape: Shape, usage: bool = False) -> AsyncIterator[Response]:
    """Like `chunks`, without blocking the event loop."""
    with running:
        for response in shape.begin():
            yield response
        async for event in running:
            yield shape.chunk(event, running.reading.taken())
        for response in shape.end(running.answer, running.reading.taken()):
            yield response
        if usage:
            yield shape.usage(running.answer)
