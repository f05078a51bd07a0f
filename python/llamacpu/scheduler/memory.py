"""The memory budget of keys and values: cached prefixes are evicted first, then the youngest requests wait."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from llamacpu.engine.interfaces import PAGE_TOKENS, KVType, ModelLike
from llamacpu.engine.machine import available_memory
from llamacpu.scheduler.pages import PageCounter
from llamacpu.scheduler.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from llamacpu.scheduler.jobs import Job, Part, Slot
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["Memory", "default_limit"]

# For systems that do not report how much memory there is.
_PRIOR_LIMIT = 4 << 30
_LEAST_LIMIT = 256 << 20


def default_limit(model: ModelLike) -> int:
    """Return half of the memory that is left once the weights are loaded, in bytes."""
    available = available_memory()
    if available is None:
        return _PRIOR_LIMIT
    # Weights that are mapped but not read yet will take memory too.
    weights = int(getattr(model, "weight_bytes", 0))
    return max((available - weights) // 2, _LEAST_LIMIT)


class Memory:
    """Counts pages and makes room for more. Used under the scheduler's lock.

    limit  bytes of keys and values of all sessions and of the cache
    cache  the prefix cache; None if prefixes are not cached
    state_bytes  what recurrent layers keep for a session at most
    """

    def __init__(
        self,
        limit: int,
        page_bytes: Callable[[KVType], int],
        cache: PrefixCache | None,
        statistics: Statistics,
        state_bytes: int = 0,
    ) -> None:
        self.limit = limit
        self.cache = cache
        self._page_bytes = page_bytes
        self._state_bytes = state_bytes
        self._counters: dict[str, PageCounter] = {}
        self._statistics = statistics
        statistics.kv_bytes_limit = limit

    def counter(self, kv_type: KVType) -> PageCounter:
        """Return the counter for the pages of sessions that store keys and values as `kv_type`."""
        if kv_type not in self._counters:
            self._counters[kv_type] = PageCounter(self._page_bytes(kv_type), self._state_bytes)
        return self._counters[kv_type]

    @property
    def nbytes(self) -> int:
        """The bytes in use."""
        return sum(counter.nbytes for counter in self._counters.values())

    def gauge(self) -> None:
        """Update the gauges in the statistics."""
        self._statistics.kv_bytes = self.nbytes
        self._statistics.prefix_entries = 0 if self.cache is None else len(self.cache)

    def free(self, nbytes: int) -> bool:
        """Evict cached prefixes until there is room for `nbytes` bytes; return whether there is."""
        while self.nbytes + nbytes > self.limit:
            if self.cache is None or not self.cache.evict():
                return False
            self._statistics.add(prefix_evictions=1)
        return True

    def fits(self, tokens: int, kv_type: KVType, running: Iterable[Slot]) -> bool:
        """Return whether a request of `tokens` tokens can run alongside these, once all cached prefixes are evicted."""
        counter = self.counter(kv_type)
        held = {id(page) for slot in running for page in slot.pages}
        # One more page, since the sessions keep growing.
        pages = len(held) + -(-tokens // PAGE_TOKENS) + 1 + counter.state_pages
        return pages * counter.page_bytes <= self.limit

    def make_room(self, parts: Sequence[Part], jobs: Sequence[Job]) -> list[Part]:
        """Return the parts for which there is memory. Older sessions come first, and younger ones are preempted for
        them: their keys and values are discarded, and recomputed when their turn comes."""
        taken: list[Part] = []
        given_up: set[Job] = set()
        needed = 0
        for part in sorted(parts, key=lambda part: part.job.slot.number):
            slot = part.job.slot
            if part.job in given_up:
                continue
            missing = slot.pages.missing(slot.native.position, len(part.ids)) * slot.pages.page_bytes
            while not (fits := self.free(needed + missing)):
                victim = self._youngest(slot, jobs)
                if victim is None:
                    break
                victim.preempt()
                given_up.add(victim)
                self._statistics.add(preemptions=1)
            if fits:
                taken.append(part)
                needed += missing
        return taken

    def _youngest(self, slot: Slot, jobs: Sequence[Job]) -> Job | None:
        """Return the job of the youngest session whose memory may be taken for `slot`, None if there is none."""
        younger = [
            job for job in jobs if job.slot.preemptible and job.slot.number > slot.number and len(job.slot.pages)
        ]
        return max(younger, key=lambda job: job.slot.number, default=None)
