"""The keyboard during an answer: Ctrl-C stops it, and other input waits for the next prompt without being shown."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["stopping", "unechoed"]


@contextlib.contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Make Ctrl-C call `stop` instead of raising KeyboardInterrupt wherever the program happens to be."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, lambda _number, _frame: stop())
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)


@contextlib.contextmanager
def unechoed() -> Iterator[None]:
    """Turn off the terminal's echo: input typed meanwhile stays queued for the next read instead of being shown."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):
        yield  # not a terminal, or on Windows
        return
    except termios.error:
        yield
        return
    quiet = list(before)
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
