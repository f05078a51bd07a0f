"""The streams that will ask for their next token at once, and how long a step waits for them.

A stream that is being decoded asks for its next token as soon as it has sampled the last one. To keep streams together
in one step instead of having them take turns, a step waits briefly for those that the previous step served; it starts
as soon as all of them have come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from llamacpu.scheduler.jobs import Slot

__all__ = ["Expected"]

# How long to wait: a fraction of the duration of the previous step, and its bounds in seconds.
_PATIENCE = 0.2
_LEAST_PATIENCE = 0.002
_MOST_PATIENCE = 0.03
# How long a stream that missed a step still counts as running, in seconds.
_LATE = 1.0


class Expected:
    """The slots that are expected, guarded by the scheduler's lock."""

    def __init__(self) -> None:
        self._slots: set[Slot] = set()
        self._patience = _LEAST_PATIENCE
        # How many streams did not come in time, and until when they are still counted.
        self._late, self._late_until = 0, 0.0

    def __bool__(self) -> bool:
        """Whether any slot is expected."""
        return bool(self._slots)

    def add(self, slot: Slot) -> None:
        """Expect a slot that was just served."""
        self._slots.add(slot)

    def came(self, slots: Iterable[Slot]) -> None:
        """Note that these slots have asked again."""
        self._slots.difference_update(slots)

    def forget(self, slot: Slot) -> bool:
        """Stop expecting a slot; return whether it was the last one expected."""
        if slot not in self._slots:
            return False
        self._slots.discard(slot)
        return not self._slots

    @property
    def late(self) -> int:
        """The number of streams that did not come in time and may come soon."""
        return self._late if monotonic() < self._late_until else 0

    def note(self, seconds: float) -> None:
        """Note how many seconds a step took."""
        self._patience = min(max(_PATIENCE * seconds, _LEAST_PATIENCE), _MOST_PATIENCE)

    def wait(self, changed: threading.Condition, ended: Callable[[], bool]) -> None:
        """Wait, holding the lock, until all slots have come or the time is up."""
        end = monotonic() + self._patience
        while self._slots and not ended():
            left = end - monotonic()
            if left <= 0:
                self._late, self._late_until = len(self._slots), monotonic() + _LATE
                self._slots.clear()
            else:
                changed.wait(left)
