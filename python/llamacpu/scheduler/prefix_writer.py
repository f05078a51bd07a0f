"""The thread that writes prefixes to files: those shared by several requests and, when idle, others in memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING

from llamacpu import log

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.scheduler.prefix_files import PrefixFiles

__all__ = ["LEAST_TOKENS", "PrefixWriter"]


# Shorter prefixes are so fast to compute that they are not worth a file.
LEAST_TOKENS = 64
# How long nothing must run before prefixes held in memory are written, in seconds.
_QUIET = 1.0
# How many prefixes may wait to be written: each holds on to its pages.
_MOST_WAITING = 4


class PrefixWriter:
    """Writes sessions to files in the background.

    spare  returns a session that is worth writing while nothing runs, or None; called in the writer's thread with
           whether the engine is closing
    """

    def __init__(self, files: PrefixFiles, spare: Callable[[bool], SessionLike | None]) -> None:
        self._files = files
        self._spare = spare
        self._changed = threading.Condition(threading.RLock())
        self._waiting: deque[SessionLike] = deque()
        self._end: float | None = None
        self._asked = False
        self._thread = threading.Thread(target=self._run, name="llamacpu-prefixes", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, session: SessionLike) -> None:
        """Write a session soon, unless too many wait."""
        with self._changed:
            if len(self._waiting) < _MOST_WAITING and self._end is None:
                self._waiting.append(session)
                self._changed.notify_all()

    def quiet(self) -> None:
        """Note that nothing is running now."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()

    def stop(self, seconds: float) -> None:
        """Write what is left for at most `seconds` seconds, then end."""
        with self._changed:
            self._end = monotonic() + seconds
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds + 5)

    def _run(self) -> None:
        try:
            while (session := self._next()) is not None:
                self._files.save(session)
                del session
        except Exception:
            log.exception("prefixes are not written any more")

    def _next(self) -> SessionLike | None:
        """Return the next session to write; None at the end."""
        while True:
            with self._changed:
                while not self._waiting and not self._asked and self._end is None:
                    self._changed.wait()
                if self._waiting:
                    return self._waiting.popleft()
                if self._end is None:
                    # Woken because nothing is running: wait to see whether that lasts.
                    self._asked = False
                    self._changed.wait(_QUIET)
                    if self._asked or self._waiting:
                        continue
            if self._end is not None and monotonic() > self._end:
                return None
            session = self._spare(self._end is not None)
            if session is not None:
                with self._changed:
                    self._asked = True  # there may be more
                return session
            if self._end is not None:
                return None
