"""The scheduling priority of this process among the others."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from llamacpu.errors import LlamaCpuError

__all__ = ["Priority", "set_priority"]

Priority: TypeAlias = Literal["low", "normal", "high"]
_NICE = {"low": 10, "high": -10}
_TASKS = Path("/proc/self/task")


def set_priority(priority: Priority) -> None:
    """Set the priority of this process, with all threads that it has and will have.

    "low"     what other programs leave over, and little else: nice 10, on Linux in the class SCHED_BATCH, which does
              not interrupt others when it wakes up. A process that is nicer already stays so
    "normal"  as it was started
    "high"    before others: nice -10, which needs the right to do so (root, CAP_SYS_NICE, or a limit for "nice")

    Without that right, a process cannot go back from "low". Raises PermissionError if the right is missing,
    LlamaCpuError where Python's standard library cannot set the priority (Windows), ValueError for another word.
    """
    if priority not in get_args(Priority):
        raise ValueError(f'priority is {priority!r}; expected "low", "normal" or "high"')
    if priority == "normal":
        return
    if sys.platform == "win32":
        word = {"low": "belownormal", "high": "abovenormal"}[priority]
        raise LlamaCpuError(
            f"the priority cannot be set to {priority} on Windows from inside the program; start it as in: "
            f"start /{word} llamacpu ..."
        )
    try:
        # On Linux each thread has its own; a thread that is started meanwhile has that of the thread that started it.
        done: set[int] = set()
        while new := set(_threads()) - done:
            for thread in new:
                _set(thread, priority)
            done |= new
    except PermissionError:
        raise PermissionError(
            'priority "high" needs the right to raise the priority of a process (root, CAP_SYS_NICE, or a limit for '
            '"nice" of at most -10 in /etc/security/limits.conf); leave it out, or lower that of other programs'
        ) from None


if sys.platform != "win32":

    def _set(thread: int, priority: Priority) -> None:
        with suppress(ProcessLookupError):  # a thread that has ended
            old, new = os.getpriority(os.PRIO_PROCESS, thread), _NICE[priority]
            os.setpriority(os.PRIO_PROCESS, thread, max(old, new) if priority == "low" else min(old, new))
            if sys.platform == "linux" and priority == "low" and os.sched_getscheduler(thread) == os.SCHED_OTHER:
                with suppress(PermissionError):  # some containers forbid the call
                    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))


def _threads() -> Iterator[int]:
    """The ids of the threads of this process; 0, which means the process, where it has one priority for all of them."""
    try:
        yield from (int(task.name) for task in _TASKS.iterdir())
    except OSError:
        yield 0
