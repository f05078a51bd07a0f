"""What a request finds already computed: by requests before it, or by one that runs beside it."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from llamacpu.scheduler.prefix_cache import Cached, PrefixCache, TokenKey, key_of, shared_tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llamacpu.scheduler.requests import Work
    from llamacpu.scheduler.scheduler import Scheduler
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["Prefixes"]

# Waiting for another request pays where it computes so many tokens that nobody has yet.
_LEAST_WAIT = 32


class Wait:
    """A request that waits until another one has computed so many tokens of its prompt.

    served  whether it was given them
    over    whether waiting has an end
    """

    def __init__(self, work: Work, key: TokenKey, other: Work, tokens: int) -> None:
        self.work = work
        self.key = key
        self.other = other
        self.tokens = tokens
        self.served = False
        self.over = Event()


class Prefixes:
    """Gives requests their sessions, with the beginning of the prompt in them, and takes them back."""

    def __init__(self, cache: PrefixCache | None, statistics: Statistics) -> None:
        self._cache = cache
        self._statistics = statistics
        self.scheduler: Scheduler  # set before anything is called
        # The prompts of those that have begun.
        self._begun: dict[Work, TokenKey] = {}
        self._waits: list[Wait] = []

    def lease(self, work: Work) -> None:
        """Fill the session of a request, in its own thread; may wait for another request."""
        if self._cache is None:
            return
        key = key_of(work.prompt)
        last = len(work.prompt) - 1
        while not work.token.cancelled:
            with self.scheduler.changed:
                found = self._cache.length(key)
                other, shared = self._best_of_others(key, last)
                if other is None or shared < min(found, last) + _LEAST_WAIT:
                    self._begun[work] = key
                    cached = self._cache.find(key)
                    if cached is not None:
                        self._use(work, cached[0], min(cached[1], last))
                    self._statistics.add(prefix_lookups=1, prefix_hits=int(cached is not None))
                    return
                wait = Wait(work, key, other, shared)
                self._waits.append(wait)
                # Sessions are copied between steps, by the thread that steps.
                self.scheduler.changed.notify_all()
            wait.over.wait()
            if wait.served:
                self._statistics.add(prefix_lookups=1, prefix_hits=1)
                return

    def give_back(self, work: Work) -> None:
        """The request has ended: what it computed is kept for others. Under the scheduler's lock."""
        self._begun.pop(work, None)
        slot = work.session.slot
        tokens = slot.native.tokens
        if tokens and self._cache is not None:
            self._cache.add(key_of(tokens), Cached(slot.native.fork(), slot.pages.fork()))
        # Whoever still holds the request does not hold its keys and values.
        slot.native.truncate(0)
        slot.pages.truncate(0)

    def tick(self) -> None:
        """Between two steps: serve those that have waited long enough. Under the scheduler's lock."""
        for wait in list(self._waits):
            slot = wait.other.session.slot
            if wait.other in self._begun and not wait.work.token.cancelled:
                if slot.native.position < wait.tokens:
                    continue
                self._use(wait.work, Cached(slot.native, slot.pages), wait.tokens)
                self._begun[wait.work] = wait.key
                wait.served = True
            self._waits.remove(wait)
            wait.over.set()

    def waiting(self) -> Iterable[Work]:
        """The requests that wait for others."""
        return [wait.work for wait in self._waits]

    def end(self) -> None:
        """Nobody shall wait any more, and nothing is kept."""
        for wait in self._waits:
            wait.over.set()
        self._waits.clear()
        if self._cache is not None:
            self._cache.clear()

    def _best_of_others(self, key: TokenKey, last: int) -> tuple[Work | None, int]:
        best, length = None, 0
        for other, prompt in self._begun.items():
            shared = min(shared_tokens(prompt, key), last)
            if shared > length:
                best, length = other, shared
        return best, length

    def _use(self, work: Work, cached: Cached, shared: int) -> None:
        slot = work.session.slot
        native, pages = cached.native.fork(), cached.pages.fork()
        native.truncate(shared)
        pages.truncate(shared)
        slot.native, slot.pages = native, pages
