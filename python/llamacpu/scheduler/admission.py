"""Which requests run: a bounded queue, the turn of each client, and what memory there is."""

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

# How often tokens of others are asked whether they stop a request that waits, in seconds.
_ASK = 0.1
_LONGEST_PAUSE = 3600.0
# What a request is believed to take before one has ended, in seconds, and how far one moves the estimate.
_PRIOR_SECONDS = 5.0
_RATE = 0.1
_LONGEST_RETRY = 120.0


class Queue:
    """The requests that wait. Used under the scheduler's lock."""

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
        """In no particular order."""
        return iter([work for works in self._waiting.values() for work in works])

    def add(self, work: Work, free: int) -> None:
        """Let a request wait; `free` is how many more could run now. Overloaded where that is too many."""
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
        """The request whose turn it is: the first one of the client that was served least."""
        if not self._waiting:
            return None
        client = min(self._waiting, key=self._shares.served)
        work = self._waiting[client].popleft()
        if not self._waiting[client]:
            del self._waiting[client]
        return work

    def put_back(self, work: Work) -> None:
        """It cannot run yet: it stays the next one of its client."""
        self._waiting.setdefault(work.client, deque()).appendleft(work)

    def stopped(self) -> list[Work]:
        """Takes out the requests that nobody waits for any more."""
        found = [work for work in self if work.token.cancelled]
        for work in found:
            self._waiting[work.client].remove(work)
            if not self._waiting[work.client]:
                del self._waiting[work.client]
        return found

    def ended(self, work: Work) -> None:
        """A request has ended."""
        if work.started is not None:
            self._seconds += _RATE * (monotonic() - work.started - self._seconds)

    def retry_after(self) -> float:
        """Seconds after which the queue is likely to have room."""
        seconds = self._seconds * max(len(self), 1) / self._running
        return float(math.ceil(min(max(seconds, 1.0), _LONGEST_RETRY)))


def alarm(works: Iterable[Work]) -> float | None:
    """Seconds until one of these that wait may have to be stopped; None where there is no need to ask."""
    waiting = list(works)
    times = [work.deadline - monotonic() for work in waiting if work.deadline is not None]
    if any(work.stoppable for work in waiting):
        times.append(_ASK)
    return min(max(min(times), 0.001), _LONGEST_PAUSE) if times else None
