"""A limit on the share of time in which models compute, for laptops: battery, heat, noise.

Work comes in steps, and after each step there is a pause of such a length that computing takes the wanted share of the
time. The schedule is that of a leaky bucket (GCRA, ITU-T I.371): a step of b seconds moves the time before which the
next one may not begin by b / share. What a pause is longer than planned, and what the program does between two steps,
is deducted from later pauses, so that the share is exact in the long run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from llamacpu.arguments import number
from llamacpu.errors import Cancelled
from llamacpu.locks import ProcessLock

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken

__all__ = ["Duty", "DutyCycle", "cycle_of", "duty_of", "working"]

_CREDIT = 0.25
"""Seconds of past idle time that count as pauses: they make up for sleep that was too long."""
_POLL = 0.02
"""Seconds after which a pause looks at its cancel token and at the threads before it again."""


class DutyCycle:
    """Limits the share of time in which models compute; several models may share one.

    percent  above 0 and at most 100. A step that has begun is never interrupted
    clock, sleep  replace `time.perf_counter` and `time.sleep`

    Threads may share it: the time in which at least one of them computes counts once, and they take turns, in the order
    in which they came. Raises ValueError for a share outside the range.
    """

    def __init__(
        self,
        percent: float,
        *,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        number("duty", percent)
        if not 0 < percent <= 100:
            raise ValueError(f"duty is {percent}; expected a percentage above 0 and at most 100, or None for no limit")
        self.percent: float = float(percent)
        self._clock, self._sleep = clock, sleep
        self._lock = ProcessLock()
        # The time before which no work may begin, as far as finished work determines it.
        self._due = float("-inf")
        # Since when work is running, and in how many threads.
        self._since = 0.0
        self._running = 0
        self._waiting: deque[object] = deque()
        self._inside = threading.local()

    def __repr__(self) -> str:
        return f"DutyCycle({self.percent:g})"

    @property
    def remaining(self) -> float:
        """Seconds until work may begin; 0 if it may begin now."""
        with self._lock:
            return self._remaining(self._clock())

    @contextmanager
    def working(self, cancel: CancelToken | None = None) -> Iterator[None]:
        """Wait until work may begin, and count the time in the block as work.

        Inside another such block of the same thread this does nothing. Raises Cancelled if the token is cancelled
        during the wait; then no work has been counted.
        """
        if getattr(self._inside, "depth", 0):
            yield
            return
        self._begin(cancel)
        self._inside.depth = 1
        try:
            yield
        finally:
            self._inside.depth = 0
            self._end()

    def _begin(self, cancel: CancelToken | None) -> None:
        ticket = object()
        with self._lock:
            self._waiting.append(ticket)
        try:
            while True:
                with self._lock:
                    now = self._clock()
                    remaining = self._remaining(now)
                    first = self._waiting[0] is ticket
                    if first and remaining <= 0:
                        if not self._running:
                            self._due, self._since = max(self._due, now - _CREDIT), now
                        self._running += 1
                        return
                if cancel is not None and cancel.cancelled:
                    raise Cancelled(
                        "the time for the step was over" if cancel.reason == "timeout" else "the step was cancelled"
                    )
                self._sleep(min(remaining, _POLL) if first and remaining > 0 else _POLL)
        finally:
            with self._lock:
                self._waiting.remove(ticket)

    def _end(self) -> None:
        with self._lock:
            self._running -= 1
            if not self._running:
                self._due += (self._clock() - self._since) * 100 / self.percent

    def _remaining(self, now: float) -> float:
        due = self._due
        if self._running:
            due += (now - self._since) * 100 / self.percent
        return max(due - now, 0.0)


Duty: TypeAlias = "float | DutyCycle | None"
"""A percentage, or a cycle that is shared with other models; None for no limit."""


def cycle_of(duty: Duty) -> DutyCycle | None:
    """Return the cycle that an argument means. Raises TypeError and ValueError for one that means none."""
    return duty if duty is None or isinstance(duty, DutyCycle) else DutyCycle(duty)


def duty_of(model: object) -> DutyCycle | None:
    """Return the cycle of a model; None for one without a limit."""
    found = getattr(model, "duty", None)
    return found if isinstance(found, DutyCycle) else None


@contextmanager
def working(duty: DutyCycle | None, cancel: CancelToken | None = None) -> Iterator[None]:
    """Enter `duty.working(cancel)`, if there is a limit."""
    if duty is None:
        yield
        return
    with duty.working(cancel):
        yield
