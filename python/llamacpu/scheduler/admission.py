"""Admission of requests: a bounded queue in which clients take turns."""

from __future__ import annotations

import math
from collections import deque
from time import monotonic
from typing import TYPE_CHECKING

from llamacpu.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from llamacpu.scheduler.requests import Work
    from llamacpu.scheduler.shares import Shares
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["Queue", "alarm"]

# How often callers' cancel tokens are polled for waiting requests, in seconds.
_ASK = 0.1
_LONGEST_PAUSE = 3600.0
# The estimated duration of a request before the first one has ended, in seconds, and how far one moves the estimate.
_PRIOR_SECONDS = 5.0
_RATE = 0.1
_LONGEST_RETRY = 120.0


class Queue:
    """The waiting requests. Used under the scheduler's lock."""

    def __init__(self, limit: int, client_limit: int, running: int, shares: Shares, statistics: Statistics) -> None:
        self._limit = limit
        self._client_limit = client_limit
        self._running = running
        self._shares = shares
        self._statistics = statistics
        self._waiting: dict[str, deque[Work]] = {}
        self._seconds = _PRIOR_SECONDS

    def __len__(self) -> int:
        return sum(map(len, self._waiting.values()))

    def __iter__(self) -> Iterator[Work]:
        """Iterate over the waiting requests in no particular order."""
        return iter([work for works in self._waiting.values() for work in works])

    def add(self, work: Work, free: int) -> None:
        """Queue a request; `free` is how many more could run now. Raises Overloaded if too many are waiting."""
        waiting = len(self)
        own = len(self._waiting.get(work.client, ()))
        full = waiting - free >= self._limit
        if full or (own >= self._client_limit and waiting >= free):
            self._statistics.add(requests_rejected=1)
            retry = self.retry_after()
            who = "the engine" if full else f"client {work.client!r}"
            raise Overloaded(
                f"{who} has {waiting if full else own} requests waiting, as many as are taken; try again in "
                f"{retry:.0f} s",
                retry,
                "engine" if full else "client",
            )
        self._shares.enter(work.client)
        self._waiting.setdefault(work.client, deque()).append(work)

    def next(self) -> Work | None:
        """Take out the next request: the first one of the client that was served least; None if there is none."""
        if not self._waiting:
            return None
        client = min(self._waiting, key=self._shares.served)
        work = self._waiting[client].popleft()
        if not self._waiting[client]:
            del self._waiting[client]
        return work

    def put_back(self, work: Work) -> None:
        """Put back a request that cannot run yet, so that it stays its client's next one."""
        self._waiting.setdefault(work.client, deque()).appendleft(work)

    def stopped(self) -> list[Work]:
        """Take out the requests that have been cancelled or have timed out."""
        found = [work for work in self if work.token.cancelled]
        for work in found:
            self._waiting[work.client].remove(work)
            if not self._waiting[work.client]:
                del self._waiting[work.client]
        return found

    def ended(self, work: Work) -> None:
        """Note that a request has ended."""
        if work.started is not None:
            self._seconds += _RATE * (monotonic() - work.started - self._seconds)

    def retry_after(self) -> float:
        """Estimate the seconds after which the queue is likely to have room."""
        seconds = self._seconds * max(len(self), 1) / self._running
        return float(math.ceil(min(max(seconds, 1.0), _LONGEST_RETRY)))


def alarm(works: Iterable[Work]) -> float | None:
    """Return the seconds until one of these waiting requests may have to be stopped; None if none can."""
    waiting = list(works)
    times = [work.deadline - monotonic() for work in waiting if work.deadline is not None]
    if any(work.stoppable for work in waiting):
        times.append(_ASK)
    return min(max(min(times), 0.001), _LONGEST_PAUSE) if times else None
