"""The load of `llamacpu bench --load`: processes that keep all processors busy, and a fair share beside them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["Load", "fair_share", "processors", "waiting_load"]

# Ends with the process that started it, however that ends: its stdin is closed then.
_PROGRAM = """
import os, sys, threading
def ends():
    sys.stdin.buffer.read()
    os._exit(0)
sys.stdin.buffer.read(1)
threading.Thread(target=ends, daemon=True).start()
number = 1
while True:
    for _ in range(1000000):
        number = (number * 1103515245 + 12345) & 0x7fffffff
"""


def processors() -> int:
    """The number of processors that this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def fair_share(threads: int, each: int, count: int) -> float:
    """The share of its time on an idle machine that a thread gets beside busy ones of the same priority.

    threads  of the program
    each     busy processes per processor
    count    processors
    """
    return min(count / (threads + each * count), 1.0) / min(count / threads, 1.0)


class Load:
    """Busy processes that wait for `start`."""

    def __init__(self, running: list[subprocess.Popen[bytes]]) -> None:
        self._running = running

    def start(self) -> None:
        """Let them begin."""
        for process in self._running:
            assert process.stdin is not None
            process.stdin.write(b"1")
            process.stdin.flush()


@contextmanager
def waiting_load(each: int) -> Iterator[Load]:
    """A load of `each` processes per processor, of the priority that this process has now; it ends with the block."""
    if each and getattr(sys, "frozen", False):
        raise click.UsageError("--load runs further Python processes, which a frozen program cannot; install with pip")
    running: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(each * processors()):
            running.append(subprocess.Popen([sys.executable, "-I", "-c", _PROGRAM], stdin=subprocess.PIPE))
        yield Load(running)
    finally:
        for process in running:
            process.kill()
        for process in running:
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
