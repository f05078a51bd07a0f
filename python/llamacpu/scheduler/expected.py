"""The streams whose next token is due at once, and how long a step waits for them.

A stream that is being decoded asks for its next token as soon as it has chosen the last one. So that streams stay
together in one step instead of taking turns, a step waits a moment for those that the one before has served; it begins
at once when all of them are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading

    from llamacpu.scheduler.jobs import Slot

__all__ = ["Expected"]

# How long is waited: a share of what the step before took, within bounds, in seconds.
_PATIENCE = 0.2
_LEAST_PATIENCE = 0.002
_MOST_PATIENCE = 0.03
# For how long a stream that did not come for a step is counted among the running ones, in seconds.
_LATE = 1.0


class Expected:
    """Slots that are expected; the lock of the scheduler guards them."""

    def __init__(self) -> None:
        self._slots: set[Slot] = set()
        self._patience = _LEAST_PATIENCE
        # Streams that did not come in time, and until when they are counted on.
        self._late, self._late_until = 0, 0.0

    def __bool__(self) -> bool:
        """Whether anybody is expected."""
        return bool(self._slots)

    def add(self, slot: Slot) -> None:
        """It was served."""
        self._slots.add(slot)

    def came(self, slots: Iterable[Slot]) -> None:
        """They have asked again."""
        self._slots.difference_update(slots)

    def forget(self, slot: Slot) -> bool:
        """It will not ask; whether it was the last one that was expected."""
        if slot not in self._slots:
            return False
        self._slots.discard(slot)
        return not self._slots

    @property
    def late(self) -> int:
        """Streams that did not come in time and may come soon."""
        return self._late if monotonic() < self._late_until else 0

    def note(self, seconds: float) -> None:
        """What a step took."""
        self._patience = min(max(_PATIENCE * seconds, _LEAST_PATIENCE), _MOST_PATIENCE)

    def wait(self, changed: threading.Condition, ended: Callable[[], bool]) -> None:
        """Wait, with the lock, until all have come or patience is over."""
        end = monotonic() + self._patience
        while self._slots and not ended():
            left = end - monotonic()
            if left <= 0:
                self._late, self._late_until = len(self._slots), monotonic() + _LATE
                self._slots.clear()
            else:
                changed.wait(left)
