"""What a scheduler asks of its owner, the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from llamacpu.scheduler.jobs import Job, Part

__all__ = ["Owner"]


class Owner(Protocol):
    """The owner of a scheduler, whose methods are called in the scheduler's thread."""

    def begin(self) -> None:
        """Called before the first step; an exception ends the scheduler."""

    def tick(self) -> float | None:
        """Called between two steps or when due; returns the seconds until it must be called again, None for never."""

    def make_room(self, parts: Sequence[Part], jobs: Sequence[Job]) -> list[Part]:
        """Make room in memory for the step; return the parts for which there is room."""
