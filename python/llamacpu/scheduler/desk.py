"""The layer between requests and steps: it starts requests when it is their turn, and ends them."""

from __future__ import annotations

import threading
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING, Literal

from llamacpu import log
from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import LlamaCpuError
from llamacpu.scheduler.admission import Queue, alarm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.scheduler.jobs import Job, Part
    from llamacpu.scheduler.memory import Memory
    from llamacpu.scheduler.prefixes import Prefixes
    from llamacpu.scheduler.requests import Work
    from llamacpu.scheduler.scheduler import Scheduler
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["Desk", "EngineState"]


EngineState = Literal["loading", "ready", "draining", "closed"]


class Desk:
    """The requests of an engine. It is the scheduler's `Owner` and uses the scheduler's lock."""

    def __init__(
        self,
        model: ModelLike,
        queue: Queue,
        memory: Memory,
        prefixes: Prefixes,
        statistics: Statistics,
        most_running: int,
        load: bool,
    ) -> None:
        self._model = model
        self._queue = queue
        self._memory = memory
        self._prefixes = prefixes
        self._statistics = statistics
        self._most_running = most_running
        self._load = load
        self._loading = CancelToken()
        self._running: set[Work] = set()
        self.scheduler: Scheduler  # set before anything is called
        self.state: EngineState = "loading"
        self.loaded: tuple[int, int] = (0, 0)

    # --- For the callers ---

    def submit(self, work: Work) -> None:
        """Accept a request. Raises Overloaded if the queue is full, LlamaCpuError once the engine is closing."""
        with self.scheduler.changed:
            self.scheduler.check()
            if self.state in ("draining", "closed"):
                raise LlamaCpuError("the engine is being closed and takes no more requests; make a new one to go on")
            free = max(self._most_running - len(self._running), 0) if self.state == "ready" else 0
            self._queue.add(work, free)
            self._statistics.add(requests_submitted=1)
            self._start_due()
            if work in self._queue and (work.deadline is not None or work.stoppable):
                # The thread that watches the waiting requests does not know about this one yet.
                self.scheduler.wake()

    def company(self, own: int) -> int | None:
        """How many tokens other requests than one that had `own` tokens in the last step will have in the next one.

        None if they read prompts.
        """
        others = len(self._running) - 1
        if others <= 0:
            return 0
        decoded = self.scheduler.decoded
        return None if decoded is None else max(others, decoded - own)

    def drain(self, seconds: float) -> bool:
        """Accept no more requests and wait for the existing ones; return whether all ended within `seconds`."""
        with self.scheduler.changed:
            if self.state != "closed":
                self.state = "draining"
            return self.scheduler.changed.wait_for(self._empty, min(seconds, threading.TIMEOUT_MAX))

    def cancel_all(self) -> None:
        """Cancel every request, and loading as well."""
        with self.scheduler.changed:
            self.state = "closed"
            self._loading.cancel()
            for work in (*self._running, *self._queue):
                work.token.cancel()
            self.scheduler.poke()

    def _empty(self) -> bool:
        return (not self._running and not len(self._queue)) or self.scheduler.ended

    def forked(self) -> None:
        """In a forked child, fail all requests: no thread writes their answers here."""
        error = LlamaCpuError("the request belongs to the process that this one was forked from")
        self._statistics.lock = threading.RLock()
        for work in (*self._running, *self._queue):
            work.fail(error)
            work.channel.forked()

    # --- For the scheduler, as its owner ---

    def begin(self) -> None:
        """Load the weights if requested, then start the requests that are due."""
        if self._load:
            self._model.prepare(self._note_loaded, self._loading)
        self._prefixes.begin()
        with self.scheduler.changed:
            if self.state == "loading":
                self.state = "ready"
            self._start_due()

    def tick(self) -> float | None:
        """End waiting requests that were stopped, and start those whose turn it is."""
        with self.scheduler.changed:
            if self.scheduler.ended:
                for work in list(self._queue):
                    work.token.cancel()
                self._prefixes.end()
            stopped = self._queue.stopped()
            self._prefixes.tick()
            self._start_due()
            pause = alarm([*self._queue, *self._prefixes.waiting()])
            self._memory.gauge()
        failed = self.scheduler.error is not None
        for work in stopped:
            if failed:
                work.fail(LlamaCpuError(f"the engine has ended by an error: {self.scheduler.error!r}"))
                self._end(work)
                continue
            # It ends before its first step, because its token is already cancelled.
            work.write()
            self._end(work)
        return pause

    def make_room(self, parts: Sequence[Part], jobs: Sequence[Job]) -> list[Part]:
        """See `Memory.make_room`."""
        return self._memory.make_room(parts, jobs)

    def _note_loaded(self, done: int, total: int) -> None:
        self.loaded = done, total

    # --- The life of a request ---

    def _start_due(self) -> None:
        while self.state in ("ready", "draining") and len(self._running) < self._most_running:
            work = self._queue.next()
            if work is None:
                break
            if self._running and not self._memory.fits(
                len(work.prompt), work.session.kv_type, [other.session.slot for other in self._running]
            ):
                self._queue.put_back(work)
                break
            work.started = monotonic()
            work.state = "running"
            self._running.add(work)
            try:
                threading.Thread(
                    target=self._work, args=(work,), name=f"llamacpu-request-{work.number}", daemon=True
                ).start()
            except RuntimeError as error:  # the system has no more threads
                work.fail(error)
                self._end(work)
        self._gauge()

    def _work(self, work: Work) -> None:
        """Write the answer of a request, in the request's own thread."""
        try:
            self._prefixes.lease(work)
        except BaseException as error:
            work.fail(error)
        else:
            work.write()
        finally:
            self._end(work)

    def _end(self, work: Work) -> None:
        with self.scheduler.changed:
            self._running.discard(work)
            self.scheduler.shares.leave(work.client)
            self.scheduler.forget(work.session.slot)
            try:
                self._prefixes.give_back(work)
            except Exception:
                log.exception("what a request has computed is not kept")
            self._memory.gauge()
            self._queue.ended(work)
            self._start_due()
            if not self._running:
                self._prefixes.quiet()
            # Other requests may be waiting for this one, and so may `drain`.
            self.scheduler.wake()
        self._count(work)
        work.end()

    def _gauge(self) -> None:
        self._statistics.running, self._statistics.queued = len(self._running), len(self._queue)

    def _count(self, work: Work) -> None:
        statistics = self._statistics
        with statistics.lock:
            now = monotonic()
            statistics.request_seconds.observe(now - work.submitted)
            statistics.queue_seconds.observe((work.started or now) - work.submitted)
            if work.state == "failed":
                statistics.requests_failed += 1
                return
            result = work.running.result
            reason = result.finish_reason
            statistics.requests_cancelled += reason == "cancelled"
            statistics.requests_timed_out += reason == "timeout"
            statistics.requests_finished += reason in ("stop", "length")
            if result.timings.prompt_seconds:
                statistics.prompt_tokens += result.prompt_tokens
                statistics.cached_tokens += result.cached_tokens
            statistics.generated_tokens += len(result.tokens)
            statistics.drafted_tokens += result.timings.drafted_tokens
            statistics.accepted_tokens += result.timings.accepted_tokens
            seconds = result.timings.token_seconds
            if seconds:
                statistics.first_token_seconds.observe(seconds[0])
            for before, after in pairwise(seconds):
                statistics.between_tokens_seconds.observe(after - before)
