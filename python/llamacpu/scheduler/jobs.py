"""Jobs that wait for a step: tokens that continue a session, split into the parts that go into one step each."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from llamacpu.engine.pictures import MixedTokens
from llamacpu.errors import Cancelled
from llamacpu.multimodal.sequences import restored

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, Logits, SessionLike
    from llamacpu.engine.pictures import Piece
    from llamacpu.scheduler.pages import PageList

_numbers = itertools.count(1)

__all__ = ["Call", "Job", "Part", "Slot", "results"]


class Slot:
    """A session as the scheduler sees it.

    native       the session that is stepped
    pages        its pages, for the memory budget
    client       the client that is charged for its tokens
    busy         whether one of its jobs is waiting or running
    number       grows with every session: when memory is short, older sessions come first
    preemptible  whether its keys and values may be discarded while it waits, and recomputed later
    pictures     those among its tokens, for that case
    stops        positions at which a step shall end, because other requests want to go on from there
    """

    __slots__ = ("__weakref__", "busy", "client", "native", "number", "pages", "pictures", "preemptible", "stops")

    def __init__(self, native: SessionLike, pages: PageList, client: str) -> None:
        self.native: SessionLike = native
        self.pages: PageList = pages
        self.client: str = client
        self.busy: bool = False
        self.number: int = next(_numbers)
        self.preemptible: bool = False
        self.pictures: list[Piece] = []
        self.stops: list[int] = []


class _Waiting:
    """Something that another thread waits for."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.result: Any = None
        self.stopped = False
        # Held until there is a result: the cheapest way to make a thread wait in Python.
        self._latch = threading.Lock()
        self._latch.acquire()

    def finish(self, error: BaseException | None = None) -> None:
        """Wake the waiting thread."""
        self.error = error
        self._latch.release()

    def wait(self) -> None:
        """Wait for `finish`."""
        self._latch.acquire()


class Call(_Waiting):
    """A function that must not run concurrently with a step."""

    result: Any

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__()
        self.function = function

    def run(self) -> None:
        """Call the function and wake the waiting thread."""
        try:
            self.result = self.function()
        except BaseException as error:
            self.finish(error)
        else:
            self.finish()


class Job(_Waiting):
    """Tokens that continue a session, whose logits a thread is waiting for.

    done     how many of the tokens have been computed
    start    position of the session before the first of them
    stopped  whether the result is no longer wanted
    """

    result: Any

    def __init__(self, slot: Slot, ids: Sequence[int], logits: Logits, cancel: CancelToken | None) -> None:
        super().__init__()
        self.slot = slot
        self.ids: Sequence[int] = ids
        if isinstance(ids, MixedTokens):
            slot.pictures += [piece for _, piece in ids.pieces]
        # With one token, "all" rows and the "last" row are the same: no separate step is needed.
        self._one = logits == "all" and len(ids) == 1
        self.logits: Logits = "last" if self._one else logits
        self.cancel = cancel
        self.start: int = slot.native.position
        self.done: int = 0
        # Number of leading tokens whose logits are not wanted, because they are being recomputed.
        self._again = 0
        self._rows: list[Any] = []

    @property
    def left(self) -> int:
        """The number of tokens still to be computed."""
        return len(self.ids) - self.done

    @property
    def cancelled(self) -> bool:
        """Whether the result is no longer wanted."""
        return self.stopped or (self.cancel is not None and self.cancel.cancelled)

    def undo(self) -> None:
        """Forget what has been computed."""
        if self.slot.native.position > self.start:
            self.slot.native.truncate(self.start)
            self.slot.pages.truncate(self.start)

    def advance(self, count: int, rows: Any) -> bool:
        """Record that `count` tokens were computed, with these rows of logits; return whether the job is done."""
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
        """Discard the keys and values of the session; its tokens will be recomputed before those of the job."""
        held = self.slot.native.tokens
        self.ids = restored([*held, *self.ids[self.done :]], self.slot.pictures)
        self.done, self._again = 0, max(self._again, len(held))
        self.slot.native.truncate(0)
        self.slot.pages.truncate(0)

    def cancel_error(self) -> Cancelled:
        """Return the error to raise in the thread whose work was stopped."""
        reason = None if self.cancel is None else self.cancel.reason
        return Cancelled("the time for the step was over" if reason == "timeout" else "the step was cancelled")


class Part(NamedTuple):
    """The tokens of a job that go into one step."""

    job: Job
    ids: Sequence[int]


def results(finished: Sequence[Job | Call]) -> list[Any]:
    """The results of what has been waited for; raises the first error, if there is one."""
    failed = [one.error for one in finished if one.error is not None]
    if failed:
        try:
            raise failed[0]
        finally:
            # The error's traceback holds this frame; if the frame held the error, neither would be freed.
            for one in finished:
                one.error = None
            del failed
    return [one.result for one in finished]
