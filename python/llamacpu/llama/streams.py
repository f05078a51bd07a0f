"""A streamed response of `Llama`, for use with `for` and `async for`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from llamacpu.answers import RunningAnswer

__all__ = ["ResponseStream"]

Chunk = TypeVar("Chunk")


class ResponseStream(Iterator[Chunk], Generic[Chunk]):
    """The chunks of a response as they are generated; dropping the stream or calling `close` ends the work."""

    def __init__(self, chunks: Generator[Chunk, None, None], running: list[RunningAnswer]) -> None:
        """Make the stream; `running` gets the answer that produces the chunks, once it has begun."""
        self._chunks = chunks
        self._running = running
        self._closed = False

    def __iter__(self) -> ResponseStream[Chunk]:
        """The stream itself."""
        return self

    def __next__(self) -> Chunk:
        """The next chunk."""
        return next(self._chunks)

    def __aiter__(self) -> ResponseStream[Chunk]:
        """The stream itself; `async for` runs the work in the event loop's thread pool."""
        return self

    async def __anext__(self) -> Chunk:
        """Like `__next__`, but without blocking the event loop. Cancelling the task stops the work."""
        import asyncio

        try:
            found = await asyncio.to_thread(self._next_in_a_thread)
        except asyncio.CancelledError:
            self.close()
            raise
        if not found:
            raise StopAsyncIteration
        return found[0]

    def _next_in_a_thread(self) -> list[Chunk]:
        found = [chunk for chunk in (next(self._chunks, None),) if chunk is not None]
        if self._closed:
            # Nothing is waiting for this chunk any more, and nothing will ask for the next.
            self._chunks.close()
        return found

    def close(self) -> None:
        """Stop the work; a step running in another thread ends soon."""
        self._closed = True
        for running in self._running:
            running.close()
        try:
            self._chunks.close()
        except ValueError:
            return  # another thread is running it, and closes it
