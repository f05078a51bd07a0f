"""Answers on their way from the threads that compute them to the event loop that sends them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from llamacpu.answers import answer
from llamacpu.answers.reading import Event
from llamacpu.engine.interfaces import CancelToken
from llamacpu.server.errors import ApiError, told

if TYPE_CHECKING:
    from llamacpu.answers import Answer, Question
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation import GeneratedToken
    from llamacpu.server.metrics import Metrics
    from llamacpu.server.settings import Settings

__all__ = ["Run", "Running", "Sessions"]

log = logging.getLogger("llamacpu.server")


class Sessions(Protocol):
    """Where the sessions of a model come from."""

    def session_for(self, ids: list[int], cancel: CancelToken) -> AbstractContextManager[SessionLike]:
        """A session that may hold a beginning of these tokens already; it is given back at the end."""


@dataclass(frozen=True)
class Step:
    """What became certain: an event of the answer, and the tokens since the one before."""

    event: Event
    tokens: list[GeneratedToken]


@dataclass(frozen=True)
class End:
    """The finished answer, and the tokens since the last event."""

    answer: Answer
    tokens: list[GeneratedToken]


class Run:
    """One answer: iterate over its `Step`s with `async for`, then read `end`.

    Leaving it early needs `close`, which stops the work within a step.
    """

    def __init__(self, question: Question, timeout: float) -> None:
        """Use `Running.start`."""
        self.question = question
        self.timeout = timeout
        self.asked = time.monotonic()
        self.cancel = CancelToken()
        self.end: End | None = None
        self.prompt_done = 0
        self._queue: asyncio.Queue[Step | End | BaseException] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._later: list[Callable[[], None]] = []
        self._work: Future[None] | None = None

    def __aiter__(self) -> Run:
        """The run itself."""
        return self

    async def __anext__(self) -> Step:
        """The next event. Raises ApiError where the answer failed."""
        if self.end is not None:
            raise StopAsyncIteration
        found = await self._queue.get()
        if isinstance(found, Step):
            return found
        if isinstance(found, BaseException):
            self._queue.put_nowait(found)
            raise told(found)
        self.end = found
        raise StopAsyncIteration

    async def read(self) -> End:
        """Wait for the end; the tokens are all that there are."""
        tokens: list[GeneratedToken] = []
        async for step in self:
            tokens += step.tokens
        assert self.end is not None
        return End(self.end.answer, tokens + self.end.tokens)

    def close(self) -> None:
        """Stop the work: within a step, or at once if it has not begun."""
        self.cancel.cancel()
        if self._work is not None and self._work.cancel():
            self.put(ApiError(503, "the request was given up before it began", retry_after=1))
            self.finish()

    def at_end(self, function: Callable[[], None]) -> None:
        """Call a function on the event loop when nothing computes any more."""
        self._later.append(function)

    def begun(self, work: Future[None]) -> None:
        """A thread has it, or will have."""
        self._work = work

    def put(self, found: Step | End | BaseException) -> None:
        """From the thread that computes."""
        self._call(lambda: self._queue.put_nowait(found))

    def finish(self) -> None:
        """From the thread that computes: this was the end."""
        for function in self._later:
            self._call(function)

    def _call(self, function: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:
            log.debug("the event loop ended before an answer did")


class Running:
    """All answers of a server: so many are computed at once, so many may wait, one more is refused."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.settings = settings
        self.metrics = metrics
        self.active: set[Run] = set()
        self.draining = False
        self._threads = ThreadPoolExecutor(settings.parallel, thread_name_prefix="llamacpu-answer")
        # What is short must not wait for what is long.
        self._short = ThreadPoolExecutor(2, thread_name_prefix="llamacpu-request")

    @property
    def waiting(self) -> int:
        """Requests that are not being computed yet."""
        return max(len(self.active) - self.settings.parallel, 0)

    def admit(self, answers: int = 1) -> None:
        """Raises ApiError where so many more answers find no place."""
        if self.draining:
            raise ApiError(503, "the server is shutting down; ask another one, or later", retry_after=5)
        room = self.settings.parallel + self.settings.queue - len(self.active)
        if answers > room:
            self.metrics.refused.inc()
            raise ApiError(
                429, f"{len(self.active)} answers are being computed or wait; ask again later", code="queue_full",
                retry_after=self._seconds_per_place(),
            )  # fmt: skip

    def start(self, sessions: Sessions, question: Question, timeout: float | None = None) -> Run:
        """Begin to compute an answer, or to wait for a place. Raises ApiError where there is none."""
        self.admit()
        run = Run(question, min(timeout or self.settings.timeout, self.settings.timeout))
        self.active.add(run)
        run.at_end(lambda: self.active.discard(run))
        run.begun(self._threads.submit(self._compute, sessions, run))
        return run

    async def short(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Work that takes a moment, in a thread: prompts, grammars."""
        return await asyncio.get_running_loop().run_in_executor(self._short, function, *arguments)

    async def long(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Work that takes a place as an answer does: embeddings, verdicts."""
        self.admit()
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def drain(self) -> None:
        """Let running answers end, for as long as the settings say, and then end them."""
        self.draining = True
        until = time.monotonic() + self.settings.grace_seconds
        while self.active and time.monotonic() < until:
            await asyncio.sleep(0.02)
        for run in list(self.active):
            run.close()
        while self.active and time.monotonic() < until + 5:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """End everything. May be called from any thread."""
        self.draining = True
        for run in list(self.active):
            run.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._short.shutdown(wait=False, cancel_futures=True)

    def _seconds_per_place(self) -> int:
        return 1 + len(self.active) // max(self.settings.parallel, 1)

    def _compute(self, sessions: Sessions, run: Run) -> None:
        started = time.monotonic()
        self.metrics.queue_seconds.observe(started - run.asked)
        try:
            left = run.timeout - (started - run.asked)
            if run.cancel.cancelled or left <= 0:
                raise ApiError(503, "the request waited longer than it may; ask again later", retry_after=5)
            with sessions.session_for(list(run.question.prompt), run.cancel) as session:

                def on_prompt(done: int, total: int) -> None:
                    run.prompt_done = done

                running = answer(session, run.question, cancel=run.cancel, timeout=left, on_prompt=on_prompt)
                with running:
                    for event in running:
                        run.put(Step(event, running.reading.taken()))
                    end = End(running.answer, running.reading.taken())
            self.metrics.count(end.answer, started - run.asked)
            run.put(end)
        except BaseException as error:
            run.put(error)
        finally:
            run.finish()
