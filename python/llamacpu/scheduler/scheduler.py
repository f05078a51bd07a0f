"""The thread that runs the steps: it gathers the jobs that are due, runs one step over them, and returns the logits."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llamacpu import log
from llamacpu.drafting.cost import StepCost
from llamacpu.engine.duty import duty_of
from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import Cancelled, LlamaCpuError
from llamacpu.scheduler.accounts import charge, note
from llamacpu.scheduler.expected import Expected
from llamacpu.scheduler.jobs import Call, Job, Part, Slot, results
from llamacpu.scheduler.owner import Owner
from llamacpu.scheduler.plan import MOST_ROWS, plan, wanted_logits

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.scheduler.pace import Pace
    from llamacpu.scheduler.shares import Shares
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["IN_USE", "Scheduler"]


# Seconds that the thread waits if there is no memory for any step.
_MEMORY_PAUSE = 0.05
_MOST_MEMORY_PAUSES = 100

IN_USE = "the session is in the middle of another step; wait for it, or use a fork of the session"


class Scheduler:
    """Runs the steps of a model; its lock guards the jobs, the pages and its owner's state."""

    def __init__(
        self, model: ModelLike, statistics: Statistics, shares: Shares, pace: Pace, owner: Owner, most: int
    ) -> None:
        self.model = model
        self.changed: threading.Condition = threading.Condition(threading.RLock())
        self.statistics = statistics
        self.shares = shares
        self._pace = pace
        # What steps without prompts cost, and the tokens of the last step, None if some were of prompts.
        self.cost: StepCost = StepCost()
        self.decoded: int | None = None
        self._owner = owner
        self._duty = duty_of(model)
        self._most = most
        self._jobs: list[Job] = []
        self._calls: deque[Call] = deque()
        self._expected = Expected()
        self._idle = False
        self._pauses = 0
        self._again = False
        # The token that cancels the running step, and the parts of that step.
        self._step: tuple[CancelToken, list[Part]] | None = None
        self._ended: LlamaCpuError | None = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="llamacpu-scheduler", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    # --- For the calling threads ---

    def run(self, jobs: Sequence[Job]) -> list[Any]:
        """Run jobs and return their results. After an error every session is as it was before."""
        for job in jobs:
            if job.cancelled:
                raise job.cancel_error()
            if job.start + len(job.ids) > job.slot.native.context:
                # Refused before any work is done, with the model's own error message.
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
            self._expected.came(slots)
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
        if any(job.error is not None for job in jobs):
            with self.changed:
                for job in jobs:
                    if job.error is None:
                        job.undo()
        return results(jobs)

    def call(self, function: Callable[[], Any]) -> Any:
        """Run a function between two steps, in the scheduler's thread, and return its result."""
        if threading.current_thread() is self._thread:
            return function()
        call = Call(function)
        with self.changed:
            self.check()
            self._calls.append(call)
            self.changed.notify_all()
        call.wait()
        return results([call])[0]

    def poke(self) -> None:
        """Note that something was cancelled: end a step that is no longer wanted, and ask the owner what is next."""
        with self.changed:
            if self._step is not None and all(part.job.cancelled for part in self._step[1]):
                self._step[0].cancel()
            self.wake()

    def wake(self) -> None:
        """Have the owner asked soon, even if the thread is just about to wait."""
        with self.changed:
            self._again = True
            self.changed.notify_all()

    def forget(self, slot: Slot) -> None:
        """Expect no more jobs of this slot."""
        with self.changed:
            if self._expected.forget(slot):
                self.changed.notify_all()

    def check(self) -> None:
        """Raise LlamaCpuError if the scheduler has ended."""
        if self._ended is not None:
            raise LlamaCpuError(str(self._ended)) from self.error

    @property
    def ended(self) -> bool:
        """Whether the scheduler has ended and will run no more steps."""
        return self._ended is not None

    def stop(self, error: LlamaCpuError | None = None) -> None:
        """End at once: all waiting threads get an error, including those of a running step."""
        with self.changed:
            if self._ended is None:
                self._ended = error or LlamaCpuError("the engine is closed; make a new one to go on")
            if self._step is not None:
                self._step[0].cancel()
            self.changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; return whether it has."""
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def forked(self) -> None:
        """End in a forked child, which lacks the thread and may have a lock that is never released."""
        self.changed = threading.Condition(threading.RLock())
        self._jobs, self._calls, self._step = [], deque(), None
        self._ended = LlamaCpuError(
            "the engine belongs to the process that this one was forked from; make one of its own in the child"
        )

    def _abandon(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.stopped = True
        self.poke()

    # --- The thread ---

    def _run(self) -> None:
        try:
            self._owner.begin()
            while self._turn():
                pass
        except BaseException as error:
            if isinstance(error, Cancelled):
                self.stop()  # cancelled while loading
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
                    one.undo()
                error = self._ended
                one.finish(LlamaCpuError(str(error)))
        self._owner.tick()

    def _turn(self) -> bool:
        """Run one step or wait for work; return False at the end."""
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
            call.run()
        with self.changed:
            if self._rests(pause):
                return self._ended is None
            if self._jobs:
                self._expected.wait(self.changed, lambda: self._ended is not None)
            if self._ended is not None:
                return False
            self._drop_cancelled()
            parts = plan(self._jobs, self.shares, self._pace, self._most, self._expected.late)
            parts = self._owner.make_room(parts, self._jobs)
            for part in parts:
                part.job.slot.pages.grow(part.job.slot.native.position, len(part.ids))
            if self._jobs and not parts:
                self._wait_for_memory()
            else:
                self._pauses = 0
        self._in_steps(parts)
        return True

    def _rests(self, pause: float | None) -> bool:
        """Wait for a part of the pause that the model's duty cycle demands before a step; return whether there was any.

        Jobs that come meanwhile are part of the step, and those that are cancelled end at once.
        """
        remaining = 0.0 if self._duty is None or not self._jobs else self._duty.remaining
        if not remaining:
            return False
        self._drop_cancelled()
        if self._jobs and not self._again:
            self.changed.wait(remaining if pause is None else min(remaining, pause))
        return True

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
        """Run one step for all parts, or two, because all rows of logits of many tokens would take a lot of memory."""
        everything = [part for part in parts if part.job.logits == "all"]
        if everything and sum(len(part.ids) for part in parts) > MOST_ROWS:
            parts = [part for part in parts if part.job.logits != "all"]
            self._step_over(everything)
        if parts:
            self._step_over(parts)

    def _step_over(self, parts: list[Part]) -> None:
        logits = wanted_logits(parts)
        token = CancelToken(None, parts[0].job.cancel if len(parts) == 1 else None)
        with self.changed:
            self._step = token, parts
            if self._ended is not None or all(part.job.cancelled for part in parts):
                token.cancel()
        started = perf_counter()
        try:
            rows = self.model.step([(part.job.slot.native, part.ids) for part in parts], logits, token)
        except BaseException as error:
            self._step = None
            # No variable of this frame keeps the error: its traceback holds the frame, and neither would be freed.
            left = self._failed(parts, error, token)
        else:
            self._step = None
            seconds = perf_counter() - started
            self.decoded = note(parts, seconds, self._pace, self.cost, self.statistics)
            with self.changed:
                self._expected.note(seconds)
                charge(parts, self.shares)
            self._deliver(parts, rows, logits)
            return
        for part in left:
            self._step_over([part])

    def _failed(self, parts: list[Part], error: BaseException, token: CancelToken) -> list[Part]:
        """Note that a step has failed; return the parts to be run one by one, so that each gets its own result."""
        with self.changed:
            for part in parts:
                part.job.slot.pages.truncate(part.job.slot.native.position)
            if isinstance(error, Cancelled) and token.cancelled:
                return []  # the callers are notified before the next step
            if len(parts) == 1:
                self._finish(parts[0].job, error)
                return []
        return parts

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
            job.undo()
        job.finish(error)
