"""What a request finds already computed: by earlier requests, or by one that runs concurrently."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

from llamacpu.scheduler.pages import PageList
from llamacpu.scheduler.prefix_cache import Cached, PrefixCache, TokenKey, key_of, shared_tokens
from llamacpu.scheduler.prefix_writer import LEAST_TOKENS, PrefixWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.scheduler.jobs import Slot
    from llamacpu.scheduler.memory import Memory
    from llamacpu.scheduler.prefix_files import PrefixFiles
    from llamacpu.scheduler.requests import Work
    from llamacpu.scheduler.scheduler import Scheduler
    from llamacpu.scheduler.session import ScheduledSession
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["Prefixes"]

# Waiting for another request pays off if it computes at least this many tokens that are not available yet.
_LEAST_WAIT = 32
# A difference of so few tokens is not worth a file: headers of a chat template, for instance.
_OTHER_TOKENS = 16
# The least new tokens for which a text is written while the engine is not closing.
_LEAST_QUIET_TOKENS = 256


class Wait:
    """A request that waits until another one has computed `tokens` tokens of its prompt.

    known   how many tokens it has without the other one
    served  whether it was given more than that
    over    set when the wait is over
    """

    def __init__(self, work: Work, key: TokenKey, other: Work, tokens: int, known: int) -> None:
        self.work = work
        self.key = key
        self.other = other
        self.tokens = tokens
        self.known = known
        self.served = False
        self.over: Event = Event()


class Prefixes:
    """Fills the sessions of requests with the computed prefix of their prompts, and takes the results back."""

    def __init__(
        self,
        cache: PrefixCache | None,
        memory: Memory,
        files: PrefixFiles | None,
        statistics: Statistics,
        windowed: bool = False,
    ) -> None:
        """windowed: whether sessions of the model cannot be rewound to any position without recomputing tokens."""
        self._cache = cache
        self._memory = memory
        self._files = files
        self._windowed = windowed
        self._writer = None if files is None else PrefixWriter(files, self._spare)
        self._written: set[tuple[str, TokenKey]] = set()
        self._statistics = statistics
        self.scheduler: Scheduler  # set before anything is called
        # The prompts of the requests that have started.
        self._begun: dict[Work, TokenKey] = {}
        self._waits: list[Wait] = []

    def lease(self, work: Work) -> None:
        """Fill the session of a request, in its own thread; may wait for another request."""
        if self._cache is None:
            return
        key, kind = key_of(work.prompt), work.session.fingerprint
        last = len(work.prompt) - 1
        useless: set[Work] = set()
        while not work.token.cancelled:
            with self.scheduler.changed:
                found = self._cache.length(kind, key)
                other, shared = self._best_of_others(kind, key, last, useless)
                wait = None
                cached = self._cache.find(kind, key)
                known = 0 if cached is None else self._resume_point(cached[0].native, min(cached[1], last))
                if self._worth_reading(kind, key, max(shared, min(found, last))):
                    pass
                elif other is None or shared < known + _LEAST_WAIT:
                    self._begun[work] = key
                    if cached is not None and known:
                        self._use(work, cached[0], known)
                        if known + _OTHER_TOKENS < cached[0].native.position:
                            self._keep_shared(work.session.slot, key, known)
                    self._statistics.add(prefix_lookups=1, prefix_hits=int(known > 0))
                    return
                else:
                    wait = Wait(work, key, other, shared, known)
                    self._waits.append(wait)
                    if self._windowed:
                        # The other request's session has a state for this position if a step ends there.
                        other.session.slot.stops.append(shared)
                    # Sessions are copied between steps, by the scheduler's thread.
                    self.scheduler.wake()
            if wait is None:
                self._read(work.session, key)
                continue
            wait.over.wait()
            if wait.served:
                self._statistics.add(prefix_lookups=1, prefix_hits=1)
                return
            useless.add(wait.other)

    def give_back(self, work: Work) -> None:
        """Cache what a request that has ended computed. Under the scheduler's lock."""
        self._begun.pop(work, None)
        slot = work.session.slot
        tokens = slot.native.tokens
        if tokens and self._cache is not None:
            cached = Cached(slot.native.fork(), slot.pages.fork())
            self._cache.add(work.session.fingerprint, key_of(tokens), cached)
        # References to the request that still exist must not hold its keys and values.
        slot.native.truncate(0)
        slot.pages.truncate(0)

    def tick(self) -> None:
        """Between two steps, serve the requests whose prefix is ready. Under the scheduler's lock."""
        for wait in list(self._waits):
            slot = wait.other.session.slot
            if wait.other in self._begun and not wait.work.token.cancelled:
                if slot.native.position < wait.tokens:
                    continue
                shared = self._resume_point(slot.native, wait.tokens)
                if shared >= wait.known + _LEAST_WAIT:
                    self._use(wait.work, Cached(slot.native, slot.pages), shared)
                    self._keep_shared(wait.work.session.slot, wait.key, shared)
                    self._begun[wait.work] = wait.key
                    wait.served = True
            self._waits.remove(wait)
            if wait.tokens in slot.stops:
                slot.stops.remove(wait.tokens)
            wait.over.set()

    def waiting(self) -> Iterable[Work]:
        """Return the requests that wait for others."""
        return [wait.work for wait in self._waits]

    def end(self) -> None:
        """End all waiting and clear the cache."""
        for wait in self._waits:
            wait.over.set()
        self._waits.clear()
        if self._cache is not None:
            self._cache.clear()

    # --- Files ---

    def begin(self) -> None:
        """Find the existing files and start the writer."""
        if self._files is not None and self._writer is not None:
            self._files.scan()
            self._writer.start()

    def quiet(self) -> None:
        """Note that no request is running."""
        if self._writer is not None:
            self._writer.quiet()

    def stop_writing(self, seconds: float) -> None:
        """Write what is worth writing for at most `seconds` seconds, then end."""
        if self._writer is not None:
            self._writer.stop(seconds)

    def _worth_reading(self, kind: str, key: TokenKey, known: int) -> bool:
        if self._files is None or self._files.length(kind, key) < known + LEAST_TOKENS:
            return False
        return self._memory.free(self._files.file_bytes(kind, key))

    def _read(self, session: ScheduledSession, key: TokenKey) -> None:
        """Load the best file for a prompt into the cache, in the thread of a request."""
        assert self._files is not None
        assert self._cache is not None
        kind = session.fingerprint
        with self._files.loading:
            with self.scheduler.changed:
                known = self._cache.length(kind, key)
            if self._files.length(kind, key) < known + LEAST_TOKENS:
                return  # another request has read it in the meantime
            native = self._files.load(session.adapters, key)
            if native is None:
                return
            with self.scheduler.changed:
                pages = PageList(self._memory.counter(native.kv_type))
                pages.grow(0, native.position)
                self._cache.add(kind, key_of(native.tokens), Cached(native, pages))

    def _keep_shared(self, slot: Slot, key: TokenKey, shared: int) -> None:
        """Write the first `shared` tokens, which several requests begin with, to a file."""
        if self._writer is None or self._files is None or shared < LEAST_TOKENS:
            return
        if self._files.length(self._files.kind_of(slot.native), key) + _OTHER_TOKENS < shared:
            self._writer.put(slot.native.fork())

    def _spare(self, closing: bool) -> SessionLike | None:
        """Return a prefix that is in memory but not in a file, most recently used first; only while nothing runs."""
        if self._cache is None or self._files is None:
            return None
        with self.scheduler.changed:
            if self._begun and not closing:
                return None
            for (kind, key), cached in self._cache.recent():
                tokens = cached.native.position
                known = self._files.length(kind, key)
                # A conversation is not written again after every turn.
                enough = tokens - known > (_OTHER_TOKENS if closing else max(_LEAST_QUIET_TOKENS, known // 4))
                if tokens >= LEAST_TOKENS and enough and (kind, key) not in self._written:
                    self._written.add((kind, key))
                    return cached.native.fork()
        return None

    def _resume_point(self, session: SessionLike, shared: int) -> int:
        """Return how many of its first `shared` tokens a session can be rewound to without recomputing tokens in a step
        that holds up all other requests."""
        find = getattr(session, "resume_point", None)
        return shared if find is None else int(find(shared))

    def _best_of_others(self, kind: str, key: TokenKey, last: int, useless: set[Work]) -> tuple[Work | None, int]:
        best, length = None, 0
        for other, prompt in self._begun.items():
            shared = min(shared_tokens(prompt, key), last)
            if shared > length and other not in useless and other.session.fingerprint == kind:
                best, length = other, shared
        return best, length

    def _use(self, work: Work, cached: Cached, shared: int) -> None:
        slot = work.session.slot
        native, pages = cached.native.fork(), cached.pages.fork()
        native.truncate(shared)
        pages.truncate(shared)
        slot.native, slot.pages = native, pages
