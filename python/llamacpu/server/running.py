"""Answers on their way from an engine to a response, and work for requests other than answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llamacpu.answers.reading import Piece
from llamacpu.scheduler import PromptReport
from llamacpu.server.errors import ApiError, told

if TYPE_CHECKING:
    from llamacpu.answers import Answer
    from llamacpu.answers.reading import Event
    from llamacpu.generation import GeneratedToken
    from llamacpu.scheduler import Request

__all__ = ["End", "Run", "Step", "Work", "blocks"]


@dataclass(frozen=True)
class Step:
    """One step of an answer: an event, and the tokens since the previous event."""

    event: Event
    tokens: list[GeneratedToken]


@dataclass(frozen=True)
class End:
    """The finished answer, the tokens since the last event, and why it was refused, if it was."""

    answer: Answer
    tokens: list[GeneratedToken]
    refusal: str | None = None


class Run:
    """One answer: iterate over its `Step`s with `async for` and then use `end`, or await `read`.

    To stop early, call `close`, which stops the work within one step.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.end: End | None = None

    def __aiter__(self) -> Run:
        """Return the run itself."""
        return self

    async def __anext__(self) -> Step:
        """Return the next step. Raises ApiError if the answer failed."""
        while True:
            found = await self.advance()
            if found is None:
                raise StopAsyncIteration
            if isinstance(found, Step):
                return found

    async def advance(self) -> Step | PromptReport | None:
        """Return the next step, or report on the prompt if they are wanted; None at the end. Raises ApiError."""
        if self.end is None:
            try:
                found = await self.request.next_async()
                if isinstance(found, PromptReport):
                    return found
                if found is not None:
                    return Step(found, self.request.reading.taken())
                self.end = End(self.request.answer, self.request.reading.taken())
            except Exception as error:
                raise told(error) from error
        return None

    async def read(self) -> End:
        """Wait for the end and return it, with all tokens of the answer. Raises ApiError."""
        try:
            answer = await self.request.read_async()
        except Exception as error:
            raise told(error) from error
        self.end = End(answer, self.request.reading.taken())
        return self.end

    def close(self) -> None:
        """Stop the work."""
        self.request.close()


async def blocks(run: Run, one_call: bool) -> AsyncIterator[tuple[Event, bool]]:
    """Yield the events of an answer, each with whether it begins a block, for APIs that group them into blocks.

    Consecutive pieces of one kind form a block, and so does every call; `one_call` drops all calls after the first.
    """
    kind, calls = "", 0
    async for step in run:
        event = step.event
        found = event.kind if isinstance(event, Piece) else "call"
        calls += found == "call"
        if one_call and found == "call" and calls > 1:
            continue
        yield event, found != kind or found == "call"
        kind = found


class Work:
    """The threads of a server for work other than answers, and whether it accepts requests at all."""

    def __init__(self, longest: int = 4) -> None:
        self.draining: bool = False
        # Short work must not wait for long work.
        self._short = ThreadPoolExecutor(2, thread_name_prefix="llamacpu-prompt")
        self._long = ThreadPoolExecutor(longest, thread_name_prefix="llamacpu-request")
        self._waiting = 0
        self._most = longest * 16

    def admit(self) -> None:
        """Raise ApiError if the server no longer accepts requests."""
        if self.draining:
            raise ApiError(503, "the server is shutting down; ask another one, or later", retry_after=5)

    async def short(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run work that takes a moment: prompts, grammars. Raises ApiError while shutting down."""
        self.admit()
        return await asyncio.get_running_loop().run_in_executor(self._short, function, *arguments)

    async def long(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run work that needs the model: embeddings, verdicts. Raises ApiError if too much of it is waiting."""
        self.admit()
        if self._waiting >= self._most:
            raise ApiError(429, f"{self._waiting} requests wait; ask again later", code="queue_full", retry_after=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._long, function, *arguments)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Accept no more work. May be called from any thread."""
        self.draining = True
        self._short.shutdown(wait=False, cancel_futures=True)
        self._long.shutdown(wait=False, cancel_futures=True)


def stop_all(runs: Iterable[Run]) -> None:
    """Stop all runs."""
    for run in runs:
        run.close()
