"""`Generation`: the caller's handle to a running generation."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import Cancelled
from llamacpu.generation.loop import Loop
from llamacpu.generation.result import GenerationResult

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation.request import Request
    from llamacpu.sampling import Sampler
    from llamacpu.text.stop_strings import StopStrings


class Generation(Iterator[str]):
    """A running generation: iterate for the pieces of text, then read `result`.

    The work is done while iterating, in the thread that iterates. `close()` may be called from any thread; leaving a
    `with` block or dropping the last reference also closes it.
    """

    def __init__(
        self,
        session: SessionLike,
        request: Request,
        sampler: Sampler,
        stops: StopStrings,
        cancel: CancelToken | None,
        timeout: float | None,
    ) -> None:
        """Not called directly: use `generate`."""
        self.session = session
        self._request = request
        self._sampler = sampler
        self._stops = stops
        self._cancel = CancelToken(timeout, cancel)
        self._closed = False
        loop = Loop(session, request, sampler, stops, self._cancel)
        self._progress = loop.progress
        self._pieces = _run(loop, stops, self._cancel)

    def __repr__(self) -> str:
        ended = self._progress.ended_by
        count = len(self._progress.tokens)
        return f"<Generation: {count} tokens {'so far' if ended is None else 'and ended by ' + ended}>"

    def __iter__(self) -> Generation:
        """The generation itself."""
        return self

    def __next__(self) -> str:
        """The next piece of text, as soon as it is certain; never empty."""
        return next(self._pieces)

    def __enter__(self) -> Generation:
        """The generation itself; the `with` block closes it at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the generation."""
        self.close()

    def close(self) -> None:
        """Stop the generation; a step running in another thread ends soon. `ended_by` is then "cancelled"."""
        self._closed = True
        self._cancel.cancel()
        try:
            self._pieces.close()
        except ValueError:
            # Another thread is running it, sees the cancel token, and ends it.
            return
        if self._progress.ended_by is None:
            self._progress.ended_by = "cancelled"

    def __aiter__(self) -> Generation:
        """The generation itself; `async for` runs the work in the event loop's thread pool."""
        return self

    async def __anext__(self) -> str:
        """Like `__next__`, but without blocking the event loop. Cancelling the task stops the work."""
        import asyncio

        try:
            piece = await asyncio.to_thread(self._next_in_a_thread)
        except asyncio.CancelledError:
            self.close()
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    def _next_in_a_thread(self) -> str | None:
        piece = next(self._pieces, None)
        if self._closed:
            # Nothing is waiting for this piece any more, and nothing will ask for the next.
            self.close()
        return piece

    def read(self) -> GenerationResult:
        """Run to the end and return the result."""
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> GenerationResult:
        """The result of the generation. Raises RuntimeError before its end."""
        return self._progress.result(self._request, self._sampler.seed, self._stops.found)


def _run(loop: Loop, stops: StopStrings, cancel: CancelToken) -> Generator[str, None, None]:
    """Yield the pieces of text. It holds no reference to the `Generation`, so dropping that one closes this."""
    progress = loop.progress
    try:
        ended_by = yield from loop.run()
    except Cancelled:
        # Only the cancel token knows the reason; the error may also have been raised by a callback.
        ended_by = cancel.reason or "cancelled"
    except BaseException:
        progress.ended_by = "cancelled"
        raise
    rest = loop.rest()
    progress.ended_by = "stop_string" if stops.found is not None else ended_by
    if rest:
        yield rest
