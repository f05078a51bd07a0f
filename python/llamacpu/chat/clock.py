"""The time that chat templates read."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from datetime import datetime

__all__ = ["fixed_time", "now"]

_FIXED: ContextVar[datetime | None] = ContextVar("llamacpu.chat.clock", default=None)


def now() -> datetime:
    """The local time, or the one that `fixed_time` set."""
    return _FIXED.get() or datetime.now()


@contextlib.contextmanager
def fixed_time(moment: datetime) -> Iterator[None]:
    """Let templates that are rendered in the block, in this thread, read this time: their prompts can be repeated."""
    token = _FIXED.set(moment)
    try:
        yield
    finally:
        _FIXED.reset(token)
