"""A request: the handle that its owner holds, and the work behind it."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Literal, NamedTuple

from llamacpu.answers import Answer, RunningAnswer
from llamacpu.answers.reading import Event, Piece, ToolCall
from llamacpu.scheduler.channel import Channel

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.generation import GeneratedToken, GenerationResult
    from llamacpu.scheduler.progress import PromptReport
    from llamacpu.scheduler.session import ScheduledSession

__all__ = ["Request", "RequestState", "Told", "Work"]

RequestState = Literal["queued", "running", "finished", "failed"]
"""finished: there is an answer, possibly cut short by a cancel or a timeout; failed: there is an error."""

_numbers = itertools.count(1)


class Told(NamedTuple):
    """What the worker passes on at a time."""

    event: Event | None
    tokens: Sequence[GeneratedToken]
    report: PromptReport | None = None


class Work:
    """A request as the engine sees it. It holds no reference to the `Request`, so dropping the `Request` cancels it.

    prompt    token ids
    running   the answer to be written, in its own thread once it is the request's turn
    token     the token that cancels it
    deadline  when it times out, by the monotonic clock
    stoppable whether a caller's token, which has to be polled, may stop it too
    channel   where the answer goes, after reports on the prompt, if they are wanted
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
        channel: Channel[Told],
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
        self.channel = channel

    def write(self) -> None:
        """Write the answer; ends with an answer or an error, and never raises."""
        try:
            for event in self.running:
                self.channel.put(Told(event, self.running.reading.taken()))
            self.channel.put(Told(None, self.running.reading.taken()))
            _ = self.running.answer
            self.state = "finished"
        except BaseException as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the request with an error instead of an answer."""
        # The frames of the worker would keep its session alive.
        self.error = error.with_traceback(None)
        self.state = "failed"

    def end(self) -> None:
        """Tell the owner that the request has ended."""
        self.channel.end()


class Taken:
    """The tokens of the events that were taken, for the response formats (as `answers.Reading.taken`)."""

    def __init__(self) -> None:
        self._tokens: list[GeneratedToken] = []

    def note(self, tokens: Sequence[GeneratedToken]) -> None:
        """Add tokens that came with an event."""
        self._tokens.extend(tokens)

    def taken(self) -> list[GeneratedToken]:
        """Return the tokens added since the last call."""
        found, self._tokens = self._tokens, []
        return found


class Request(Iterator[Event]):
    """A submitted request: iterate with `for` or `async for` over its pieces and tool calls, then read `answer`.

    The answer is written in the background, whether or not anybody iterates; what was written waits to be taken.
    `cancel()`, `close()`, leaving a `with` block and dropping the last reference stop it. It provides what
    `answers.responses.chunks` and `async_chunks` need from a running answer. Only one thread or task at a time may
    iterate.

    id      a number, unique in the process
    client  the client that submitted it
    """

    def __init__(self, work: Work, poke: Callable[[], None]) -> None:
        """Use `Engine.submit`."""
        self._work = work
        self._poke = poke
        self.id: int = work.number
        self.client: str = work.client
        self.reading: Taken = Taken()

    def __repr__(self) -> str:
        """Show the request's number, client and state."""
        whose = f" of {self.client!r}" if self.client else ""
        return f"<Request {self.id}{whose}: {self.state}>"

    def __iter__(self) -> Request:
        """The request itself."""
        return self

    def __next__(self) -> Event:
        """Wait for the next piece of content or reasoning, or tool call. Raises the request's error if it failed."""
        while not isinstance(told := self._next(), Piece | ToolCall):
            if told is None:
                self._work.channel.wait()
        return told

    def __aiter__(self) -> Request:
        """The request itself."""
        return self

    async def __anext__(self) -> Event:
        """Wait for the next event without blocking the event loop or a thread; see `__next__`.

        Cancelling the task cancels the request.
        """
        while True:
            told = await self.next_async()
            if told is None:
                raise StopAsyncIteration
            if isinstance(told, Piece | ToolCall):
                return told

    async def next_async(self) -> Event | PromptReport | None:
        """Wait for the next event, or the next report on the prompt if it was submitted with `reports`.

        Returns None at the end. Raises the request's error if it failed. Cancelling the task cancels the request.
        """
        while True:
            try:
                told = self._next()
            except StopIteration:
                return None
            if told is not None:
                return told
            await self._wait("item")

    def text(self) -> Iterator[str]:
        """Yield only the pieces of content."""
        for event in self:
            if isinstance(event, Piece) and event.kind == "content":
                yield event.text

    def read(self, timeout: float | None = None) -> Answer:
        """Wait for the end and return the whole answer.

        Events that were not taken are dropped. Raises the request's error if it failed, and TimeoutError if it does
        not end within `timeout` seconds (it keeps running).
        """
        if not self._work.channel.wait("end", timeout):
            raise TimeoutError(f"the request has not ended after {timeout} seconds; it goes on")
        return self._read()

    async def read_async(self) -> Answer:
        """Wait for the end and return the whole answer without blocking the event loop; see `read`.

        Cancelling the task cancels the request.
        """
        await self._wait("end")
        return self._read()

    def cancel(self) -> None:
        """Stop the request, from any thread: it ends within a step, as "cancelled" unless it has already ended."""
        self._work.token.cancel()
        self._poke()

    def close(self) -> None:
        """Cancel the request unless it has ended."""
        if not self.ended:
            self.cancel()

    def __enter__(self) -> Request:
        """Return the request for `with`, which closes it at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the request."""
        self.close()

    def __del__(self) -> None:
        # May run at any point, so it acquires no lock; the scheduler sees the token after its next step.
        if hasattr(self, "reading"):
            self._work.token.cancel()

    @property
    def state(self) -> RequestState:
        """The state of the request: "queued", "running", "finished" or "failed"."""
        return self._work.state

    @property
    def ended(self) -> bool:
        """Whether the request has an answer or an error."""
        return self._work.channel.ended

    @property
    def answer(self) -> Answer:
        """The answer. Raises RuntimeError before the end, and the request's error if it failed."""
        if self._work.error is not None:
            raise self._work.error
        if not self.ended:
            raise RuntimeError("the request has not ended yet; iterate to its end, or call read()")
        return self._work.running.answer

    @property
    def result(self) -> GenerationResult:
        """The result of the generation: tokens, cached tokens, timings (from submission). Raises what `answer` does."""
        return self.answer.result

    @property
    def queued_seconds(self) -> float:
        """Seconds that the request waited for its turn, or has waited so far."""
        work = self._work
        return (monotonic() if work.started is None else work.started) - work.submitted

    def _next(self) -> Event | PromptReport | None:
        """Return the next event or report if there is one, else None. Raises StopIteration at the end."""
        channel = self._work.channel
        while (told := channel.take()) is not None:
            self.reading.note(told.tokens)
            if (found := told.event or told.report) is not None:
                return found
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
