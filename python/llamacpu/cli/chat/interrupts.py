"""The keyboard during an answer: Ctrl-C stops it, and what is typed waits for the next prompt without being shown."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator

__all__ = ["stopping", "unechoed"]


@contextlib.contextmanager
def stopping(stop: Callable[[], object]) -> Iterator[None]:
    """Ctrl-C calls `stop` instead of raising KeyboardInterrupt wherever the program happens to be."""
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
    """The terminal keeps what is typed meanwhile for whoever reads next, instead of showing it in the answer."""
    try:
        import termios

        descriptor = sys.stdin.fileno()
        before = termios.tcgetattr(descriptor)
    except (ImportError, OSError, ValueError, AttributeError):
        yield  # no terminal, or one of Windows
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
