"""What waits for a step: tokens that continue a session, cut into the pieces that go into one step each."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llamacpu.errors import Cancelled

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, Logits, SessionLike
    from llamacpu.scheduler.pages import PageList

_numbers = itertools.count(1)

__all__ = ["Call", "Job", "Part", "Slot"]


class Slot:
    """A session as the scheduler sees it.

    native       the session that is stepped
    pages        its pages, for the memory budget
    client       who is charged for its tokens
    busy         whether a job of it waits or runs
    number       grows with every session: where memory is short, older ones come first
    preemptible  whether its keys and values may be given up while it waits, and computed again
    """

    __slots__ = ("__weakref__", "busy", "client", "native", "number", "pages", "preemptible")

    def __init__(self, native: SessionLike, pages: PageList, client: str) -> None:
        self.native: SessionLike = native
        self.pages: PageList = pages
        self.client: str = client
        self.busy: bool = False
        self.number: int = next(_numbers)
        self.preemptible: bool = False


class _Waiting:
    """Somebody waits for it in another thread."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.result: Any = None
        self.stopped = False
        # Held until there is a result: the cheapest thing in Python that a thread can wait for.
        self._latch = threading.Lock()
        self._latch.acquire()

    def finish(self, error: BaseException | None = None) -> None:
        """Let the waiting thread go on."""
        self.error = error
        self._latch.release()

    def wait(self) -> None:
        """Wait for `finish`."""
        self._latch.acquire()


class Call(_Waiting):
    """A function that must not run beside a step."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.function = function


class Job(_Waiting):
    """Tokens that continue a session, and the thread that waits for the logits behind them.

    done     how many of the tokens have been computed
    start    position of the session before the first of them
    stopped  nobody wants the result any more
    """

    result: Any

    def __init__(self, slot: Slot, ids: Sequence[int], logits: Logits, cancel: CancelToken | None) -> None:
        super().__init__()
        self.slot = slot
        self.ids: Sequence[int] = ids
        # All rows of one token are its last one: they need no step of their own.
        self._one = logits == "all" and len(ids) == 1
        self.logits: Logits = "last" if self._one else logits
        self.cancel = cancel
        self.start: int = slot.native.position
        self.done: int = 0
        # First tokens whose rows of logits are not wanted: they are computed for the second time.
        self._again = 0
        self._rows: list[Any] = []

    @property
    def left(self) -> int:
        """Tokens that are still to be computed."""
        return len(self.ids) - self.done

    @property
    def cancelled(self) -> bool:
        """Whether the result is not wanted any more."""
        return self.stopped or (self.cancel is not None and self.cancel.cancelled)

    def advance(self, count: int, rows: Any) -> bool:
        """So many tokens were computed, with these rows of logits; returns whether that was all."""
        if self.logits == "all":
            self._rows.append(rows[max(self._again - self.done, 0) :])
        self.done += count
        if self.left:
            return False
        if self.logits == "all":
            import numpy as np

            self.result = self._rows[0] if len(self._rows) == 1 else np.concatenate(self._rows)
        elif self.logits == "last":
            self.result = rows[None] if self._one else rows
        return True

    def preempt(self) -> None:
        """Give up the keys and values of the session; its tokens are computed again before those of the job."""
        held = self.slot.native.tokens
        self.ids = [*held, *self.ids[self.done :]]
        self.done, self._again = 0, max(self._again, len(held))
        self.slot.native.truncate(0)
        self.slot.pages.truncate(0)

    def cancel_error(self) -> Cancelled:
        """What a thread gets whose work was stopped."""
        reason = None if self.cancel is None else self.cancel.reason
        return Cancelled("the time for the step was over" if reason == "timeout" else "the step was cancelled")


class Part(NamedTuple):
    """The tokens of a job that go into one step."""

    job: Job
    ids: Sequence[int]
