"""A request: what its owner holds, and the work behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Literal, NamedTuple

from llamacpu.answers import Answer, RunningAnswer
from llamacpu.answers.reading import Event, Piece
from llamacpu.scheduler.channel import Channel

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.generation import GeneratedToken, GenerationResult
    from llamacpu.scheduler.session import ScheduledSession

__all__ = ["Request", "RequestState", "Work"]

RequestState = Literal["queued", "running", "finished", "failed"]
"""finished: there is an answer, perhaps of a request that was cancelled or timed out; failed: there is an error."""

_numbers = itertools.count(1)


class Told(NamedTuple):
    """What the worker tells at a time."""

    event: Event | None
    tokens: Sequence[GeneratedToken]


class Work:
    """A request as the engine sees it. It does not hold the `Request`, so that dropping that cancels this.

    prompt    token ids
    running   the answer that is to be written, in its own thread once it is the request's turn
    token     stops it
    deadline  when its time is over, by the monotonic clock
    stoppable whether somebody else's token may stop it too, which has to be asked now and then
    """

    def __init__(
        self,
        client: str,
        prompt: Sequence[int],
        session: ScheduledSession,
        running: RunningAnswer,
        token: CancelToken,
        timeout: float | None,
        stoppable: bool,
    ) -> None:
        self.number: int = next(_numbers)
        self.client = client
        self.prompt = prompt
        self.session = session
        self.running = running
        self.token = token
        self.submitted: float = monotonic()
        self.started: float | None = None
        self.deadline: float | None = None if timeout is None else self.submitted + timeout
        self.stoppable = stoppable
        self.state: RequestState = "queued"
        self.error: BaseException | None = None
        self.channel: Channel[Told] = Channel()

    def write(self) -> None:
        """Write the answer; ends with an answer or an error, and raises nothing."""
        try:
            for event in self.running:
                self.channel.put(Told(event, self.running.reading.taken()))
            self.channel.put(Told(None, self.running.reading.taken()))
            _ = self.running.answer
            self.state = "finished"
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """There will be no answer."""
        # The frames of the worker would keep its session.
        self.error = error.with_traceback(None)
        self.state = "failed"

    def end(self) -> None:
        """Tell the owner."""
        self.channel.end()


class Taken:
    """The tokens of the events that were taken, for the shapes of responses (as `answers.Reading.taken`)."""

    def __init__(self) -> None:
        self._tokens: list[GeneratedToken] = []

    def note(self, tokens: Sequence[GeneratedToken]) -> None:
        """Tokens came with an event."""
        self._tokens.extend(tokens)

    def taken(self) -> list[GeneratedToken]:
        """The tokens since the last call."""
        found, self._tokens = self._tokens, []
        return found


class Request(Iterator[Event]):
    """A submitted request: iterate, with `for` or `async for`, for its pieces and tool calls; then read `answer`.

    It is written in the background, whether or not anybody iterates; what was written waits to be taken. `cancel()`,
    `close()`, leaving a `with` block and dropping the last reference stop it. It has what `answers.responses.chunks`
    and `async_chunks` ask of a running answer. One thread or one task at a time may iterate.

    id      a number, unique in the process
    client  on whose behalf it is
    """

    def __init__(self, work: Work, poke: Callable[[], None]) -> None:
        """Use `Engine.submit`."""
        self._work = work
        self._poke = poke
        self.id: int = work.number
        self.client: str = work.client
        self.reading: Taken = Taken()

    def __repr__(self) -> str:
        """Which one it is, whose, and where it is."""
        whose = f" of {self.client!r}" if self.client else ""
        return f"<Request {self.id}{whose}: {self.state}>"

    def __iter__(self) -> Request:
        """The request itself."""
        return self

    def __next__(self) -> Event:
        """The next piece of content or reasoning, or tool call; waits for it. Raises what went wrong."""
        while (event := self._next()) is None:
            self._work.channel.wait()
        return event

    def __aiter__(self) -> Request:
        """The request itself."""
        return self

    async def __anext__(self) -> Event:
        """As `__next__`, without blocking the event loop or a thread. Cancelling the task cancels the request."""
        while True:
            try:
                event = self._next()
            except StopIteration:
                raise StopAsyncIteration from None
            if event is not None:
                return event
            await self._wait("item")

    def text(self) -> Iterator[str]:
        """Yields the pieces of content alone."""
        for event in self:
            if isinstance(event, Piece) and event.kind == "content":
                yield event.text

    def read(self, timeout: float | None = None) -> Answer:
        """Wait for the end; the whole answer.

        Events that were not taken are dropped. Raises what went wrong; TimeoutError if the end does not come within
        `timeout` seconds (the request goes on).
        """
        if not self._work.channel.wait("end", timeout):
            raise TimeoutError(f"the request has not ended after {timeout} seconds; it goes on")
        return self._read()

    async def read_async(self) -> Answer:
        """As `read`, without blocking the event loop. Cancelling the task cancels the request."""
        await self._wait("end")
        return self._read()

    def cancel(self) -> None:
        """Stop it, from any thread: within a step it ends, and its finish reason is "cancelled" unless it has ended."""
        self._work.token.cancel()
        self._poke()

    def close(self) -> None:
        """As `cancel`."""
        if not self.ended:
            self.cancel()

    def __enter__(self) -> Request:
        """For `with`, which closes at its end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def __del__(self) -> None:
        # May run in the middle of anything: it takes no lock, and the scheduler sees the token after its next step.
        if hasattr(self, "reading"):
            self._work.token.cancel()

    @property
    def state(self) -> RequestState:
        """Where it is."""
        return self._work.state

    @property
    def ended(self) -> bool:
        """Whether it has an answer or an error."""
        return self._work.channel.ended

    @property
    def answer(self) -> Answer:
        """The answer. RuntimeError before the end; what went wrong, if something did."""
        if self._work.error is not None:
            raise self._work.error
        if not self.ended:
            raise RuntimeError("the request has not ended yet; iterate to its end, or call read()")
        return self._work.running.answer

    @property
    def result(self) -> GenerationResult:
        """How the generation went: tokens, cached tokens, timings (counted from the submission). As `answer`."""
        return self.answer.result

    @property
    def queued_seconds(self) -> float:
        """How long it waited for its turn, or has waited so far."""
        work = self._work
        return (monotonic() if work.started is None else work.started) - work.submitted

    def _next(self) -> Event | None:
        """The next event if there is one. StopIteration at the end."""
        channel = self._work.channel
        while (told := channel.take()) is not None:
            self.reading.note(told.tokens)
            if told.event is not None:
                return told.event
        if channel.ended:
            if self._work.error is not None:
                raise self._work.error
            raise StopIteration
        return None

    async def _wait(self, until: Literal["item", "end"]) -> None:
        import asyncio

        try:
            await self._work.channel.wait_async(until)
        except asyncio.CancelledError:
            self.cancel()
            raise

    def _read(self) -> Answer:
        while (told := self._work.channel.take()) is not None:
            self.reading.note(told.tokens)
        return self.answer
