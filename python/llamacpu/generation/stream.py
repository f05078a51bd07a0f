"""`Generation`: a running generation as its caller holds it."""

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
    `with` block, or dropping the last reference, closes too.
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
        """Use `generate`."""
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
        """For `with`, which closes at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Stop the generation; a step that another thread is in ends soon. `ended_by` is then "cancelled"."""
        self._closed = True
        self._cancel.cancel()
        try:
            self._pieces.close()
        except ValueError:
            # Another thread is inside: it sees the token and ends by itself.
            return
        if self._progress.ended_by is None:
            self._progress.ended_by = "cancelled"

    def __aiter__(self) -> Generation:
        """The generation itself: `async for` works in threads of the event loop's pool."""
        return self

    async def __anext__(self) -> str:
        """As `__next__`, without blocking the event loop. Cancelling the task stops the work."""
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
            # Nobody waits for the piece any more, and nobody will come for the next.
            self.close()
        return piece

    def read(self) -> GenerationResult:
        """Run to the end and return the result."""
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> GenerationResult:
        """How it went. RuntimeError before the end."""
        return self._progress.result(self._request, self._sampler.seed, self._stops.found)


def _run(loop: Loop, stops: StopStrings, cancel: CancelToken) -> Generator[str, None, None]:
    """The pieces of text. It does not hold the `Generation`, so that dropping that closes this."""
    progress = loop.progress
    try:
        ended_by = yield from loop.run()
    except Cancelled:
        # The token alone knows what stopped it; a callback may have raised the error, too.
        ended_by = cancel.reason or "cancelled"
    except BaseException:
        progress.ended_by = "cancelled"
        raise
    rest = loop.rest()
    progress.ended_by = "stop_string" if stops.found is not None else ended_by
    if rest:
        yield rest
