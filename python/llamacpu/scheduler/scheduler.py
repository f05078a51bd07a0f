"""The thread that steps: it gathers what is due, runs one step over all of it, and hands out the logits.

A stream that is being decoded asks for its next token as soon as it has chosen the last one. So that streams stay
together in one step instead of taking turns, the thread waits a moment for those that were served by the step before;
it goes on at once when all of them are there.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from llamacpu import log
from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import Cancelled, LlamaCpuError
from llamacpu.scheduler.jobs import Call, Job, Part, Slot
from llamacpu.scheduler.plan import MOST_ROWS, SHORT, plan
from llamacpu.scheduler.shares import ANSWER_WEIGHT, PROMPT_WEIGHT, Shares

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.scheduler.pace import Pace
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["IN_USE", "Owner", "Scheduler"]


# How long is waited for the streams of the step before: a share of what that step took, within bounds, in seconds.
_PATIENCE = 0.2
_LEAST_PATIENCE = 0.002
_MOST_PATIENCE = 0.03
# How long the thread waits where there is no memory for any step.
_MEMORY_PAUSE = 0.05
# For how long a stream that did not come for a step is counted among the running ones, in seconds.
_LATE = 1.0
_MOST_MEMORY_PAUSES = 100

IN_USE = "the session is in the middle of another step; wait for it, or use a fork of the session"


class Owner(Protocol):
    """Who is asked in the scheduler's thread."""

    def begin(self) -> None:
        """Before the first step; what it raises ends the scheduler."""

    def tick(self) -> float | None:
        """Between two steps, or when it asked for it: seconds until it wants to be called at the latest."""

    def make_room(self, parts: Sequence[Part], jobs: Sequence[Job]) -> list[Part]:
        """Sees to it that there is memory for the step; returns the parts for which there is."""


class Scheduler:
    """Runs the steps of a model; its lock guards the jobs, the pages and what its owner keeps beside them."""

    def __init__(
        self, model: ModelLike, statistics: Statistics, shares: Shares, pace: Pace, owner: Owner, most: int
    ) -> None:
        self.model = model
        self.changed: threading.Condition = threading.Condition(threading.RLock())
        self.statistics = statistics
        self.shares = shares
        self._pace = pace
        self._owner = owner
        self._most = most
        self._jobs: list[Job] = []
        self._calls: deque[Call] = deque()
        # Slots whose next token is due at once.
        self._expected: set[Slot] = set()
        self._idle = False
        self._patience = _LEAST_PATIENCE
        self._pauses = 0
        self._again = False
        # Streams that did not come in time, and until when they are counted on.
        self._late, self._late_until = 0, 0.0
        # What stops the running step, and whose it is.
        self._step: tuple[CancelToken, list[Part]] | None = None
        self._ended: LlamaCpuError | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="llamacpu-scheduler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    # --- For the threads that want something ---

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """Wait for jobs; their results. After an error every session is as it was before."""
        for job in jobs:
            if job.cancelled:
                raise job.cancel_error()
            if job.start + len(job.ids) > job.slot.native.context:
                # It is refused before any work, in the model's own words.
                self.model.step([(job.slot.native, job.ids)], job.logits, job.cancel)
        with self.changed:
            self.check()
            slots = {job.slot for job in jobs}
            if len(slots) < len(jobs):
                raise ValueError("a session is named twice in one step; expected each once")
            if any(slot.busy for slot in slots):
                raise RuntimeError(IN_USE)
            for slot in slots:
                slot.busy = True
            self._expected -= slots
            self._jobs.extend(jobs)
            if self._idle or not self._expected:
                self.changed.notify_all()
        try:
            for job in jobs:
                job.wait()
        except BaseException:
            # A signal handler has raised.
            self._abandon(jobs)
            raise
        failed = [job.error for job in jobs if job.error is not None]
        if failed:
            with self.changed:
                for job in jobs:
                    if job.error is None:
                        self._undo(job)
            raise failed[0]
        return [job.result for job in jobs]

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function between two steps, in the scheduler's thread; returns what it returns."""
        if threading.current_thread() is self._thread:
            return function()
        call = Call(function)
        with self.changed:
            self.check()
            self._calls.append(call)
            self.changed.notify_all()
        call.wait()
        if call.error is not None:
            raise call.error
        return call.result

    def poke(self) -> None:
        """Somebody was cancelled: a step that nobody wants any more ends, and the owner is asked what is next."""
        with self.changed:
            if self._step is not None and all(part.job.cancelled for part in self._step[1]):
                self._step[0].cancel()
            self.wake()

    def wake(self) -> None:
        """Ask the owner soon, also where the thread is just about to wait."""
        with self.changed:
            self._again = True
            self.changed.notify_all()

    def forget(self, slot: Slot) -> None:
        """No job of this slot will come."""
        with self.changed:
            if slot in self._expected:
                self._expected.discard(slot)
                if not self._expected:
                    self.changed.notify_all()

    def check(self) -> None:
        """LlamaCpuError after the end."""
        if self._ended is not None:
            raise LlamaCpuError(str(self._ended)) from self.error

    @property
    def ended(self) -> bool:
        """Whether no step will be run any more."""
        return self._ended is not None

    def stop(self, error: LlamaCpuError | None = None) -> None:
        """End at once: whoever waits gets an error, also from a step that is running."""
        with self.changed:
            if self._ended is None:
                self._ended = error or LlamaCpuError("the engine is closed; make a new one to go on")
            if self._step is not None:
                self._step[0].cancel()
            self.changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the end of the thread; returns whether it has ended."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def forked(self) -> None:
        """In a forked child, which has no such thread and perhaps a lock that nobody releases."""
        self.changed = threading.Condition(threading.RLock())
        self._jobs, self._calls, self._step = [], deque(), None
        self._ended = LlamaCpuError(
            "the engine belongs to the process that this one was forked from; make one of its own in the child"
        )

    def _abandon(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.stopped = True
        self.poke()

    def _undo(self, job: Job) -> None:
        """What a job has computed is forgotten."""
        if job.slot.native.position > job.start:
            job.slot.native.truncate(job.start)
            job.slot.pages.truncate(job.start)

    # --- The thread ---

    def _run(self) -> None:
        try:
            self._owner.begin()
            while self._turn():
                pass
        except BaseException as error:
            if isinstance(error, Cancelled):
                self.stop()  # while it was loading
            elif self._ended is None:
                self.error = error
                log.exception("the scheduler has ended by an error")
                self.stop(LlamaCpuError(f"the engine has ended by an error: {error!r}"))
        finally:
            self._end()

    def _end(self) -> None:
        with self.changed:
            waiting: list[Job | Call] = [*self._jobs, *self._calls]
            self._jobs, self._calls = [], deque()
            for one in waiting:
                if isinstance(one, Job):
                    one.slot.busy = False
                    self._undo(one)
                error = self._ended
                one.finish(LlamaCpuError(str(error)))
        self._owner.tick()

    def _turn(self) -> bool:
        """One step, or a wait for work; False at the end."""
        self._again = False
        pause = self._owner.tick()
        with self.changed:
            if self._ended is not None:
                return False
            if not self._jobs and not self._calls and not self._again:
                self._idle = True
                self.changed.wait(pause)
                self._idle = False
            call = self._calls.popleft() if self._calls else None
        if call is not None:
            self._answer(call)
        with self.changed:
            self._wait_for_the_others()
            if self._ended is not None:
                return False
            self._drop_cancelled()
            late = self._late if monotonic() < self._late_until else 0
            parts = plan(self._jobs, self.shares, self._pace, self._most, late)
            parts = self._owner.make_room(parts, self._jobs)
            for part in parts:
                part.job.slot.pages.grow(part.job.slot.native.position, len(part.ids))
            if self._jobs and not parts:
                self._wait_for_memory()
            else:
                self._pauses = 0
        self._in_steps(parts)
        return True

    def _answer(self, call: Call) -> None:
        try:
            call.result = call.function()
        except BaseException as error:
            call.finish(error)
        else:
            call.finish()

    def _wait_for_the_others(self) -> None:
        if not self._jobs:
            return
        end = monotonic() + self._patience
        while self._expected and self._ended is None:
            left = end - monotonic()
            if left <= 0:
                self._late, self._late_until = len(self._expected), monotonic() + _LATE
                self._expected.clear()
            else:
                self.changed.wait(left)

    def _wait_for_memory(self) -> None:
        self._pauses += 1
        if self._pauses <= _MOST_MEMORY_PAUSES:
            self.changed.wait(_MEMORY_PAUSE)
            return
        self._pauses = 0
        job = max(self._jobs, key=lambda job: job.slot.number)
        self._finish(
            job,
            MemoryError(
                f"no memory for keys and values: sessions that are kept open use up the budget of "
                f"{self.statistics.kv_bytes_limit} bytes; close some of them, or give the engine more memory"
            ),
        )

    def _drop_cancelled(self) -> None:
        for job in [job for job in self._jobs if job.cancelled]:
            self._finish(job, job.cancel_error())

    def _in_steps(self, parts: list[Part]) -> None:
        """One step for all parts, or two: all rows of many tokens would take much memory."""
        everything = [part for part in parts if part.job.logits == "all"]
        if everything and sum(len(part.ids) for part in parts) > MOST_ROWS:
            parts = [part for part in parts if part.job.logits != "all"]
            self._step_over(everything)
        if parts:
            self._step_over(parts)

    def _step_over(self, parts: list[Part]) -> None:
        whole = [part.job.logits for part in parts if part.job.left == len(part.ids)]
        logits: Any = "none"
        if any(part.job.logits == "all" for part in parts):
            logits = "all"
        elif "last" in whole:
            logits = "last"
        token = CancelToken(None, parts[0].job.cancel if len(parts) == 1 else None)
        with self.changed:
            self._step = token, parts
            if self._ended is not None or all(part.job.cancelled for part in parts):
                token.cancel()
        started = perf_counter()
        error: BaseException | None = None
        try:
            rows = self.model.step([(part.job.slot.native, part.ids) for part in parts], logits, token)
        except BaseException as raised:
            error = raised
        finally:
            self._step = None
        seconds = perf_counter() - started
        if error is None:
            self._note(parts, seconds)
            self._deliver(parts, rows, logits)
            return
        with self.changed:
            for part in parts:
                part.job.slot.pages.truncate(part.job.slot.native.position)
            if isinstance(error, Cancelled) and token.cancelled:
                return  # who wanted it is told before the next step
            if len(parts) == 1:
                self._finish(parts[0].job, error)
                return
        # One of them is to blame: each gets what is its own.
        for part in parts:
            self._step_over([part])

    def _deliver(self, parts: list[Part], rows: Sequence[Any], logits: str) -> None:
        with self.changed:
            for part, found in zip(parts, rows, strict=True):
                job = part.job
                if logits == "all" and job.logits != "all":
                    found = found[-1]
                if job.advance(len(part.ids), found):
                    self._expected.add(job.slot)
                    self._finish(job)

    def _finish(self, job: Job, error: BaseException | None = None) -> None:
        self._jobs.remove(job)
        job.slot.busy = False
        if error is not None:
            self._undo(job)
        job.finish(error)

    def _note(self, parts: list[Part], seconds: float) -> None:
        decoding = sum(len(part.ids) for part in parts if len(part.job.ids) <= SHORT)
        prompt = sum(len(part.ids) for part in parts) - decoding
        self._pace.note(decoding, prompt, seconds)
        self._patience = min(max(_PATIENCE * seconds, _LEAST_PATIENCE), _MOST_PATIENCE)
        with self.changed:
            for part in parts:
                short = len(part.job.ids) <= SHORT
                self.shares.charge(part.job.slot.client, len(part.ids), ANSWER_WEIGHT if short else PROMPT_WEIGHT)
        statistics = self.statistics
        with statistics.lock:
            statistics.steps += 1
            statistics.step_tokens += decoding + prompt
            statistics.step_seconds.observe(seconds)
            statistics.batch_sessions.observe(len(parts))
            statistics.batch_tokens.observe(decoding + prompt)
