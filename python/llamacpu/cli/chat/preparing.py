"""The model is read while the user types."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from llamacpu.cli.terminal import LoadBar
from llamacpu.engine.interfaces import CancelToken
from llamacpu.errors import Cancelled

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike

__all__ = ["Preparation"]

_PAUSE = 0.05


class Preparation:
    """Reads a model's weights in a thread of its own, where stderr is a terminal; elsewhere the first step does."""

    def __init__(self, model: ModelLike, then: Callable[[], object]) -> None:
        """then: is called in that thread afterwards, but not before `prompt_is_shown`, which it would delay."""
        self._then = then
        self._shown = threading.Event()
        self._model = model
        self._cancel = CancelToken()
        self._error: Exception | None = None
        self._done = (0, 1)
        self._stopped = False
        self._bar = LoadBar()
        self._thread: threading.Thread | None = None
        if self._bar.on_terminal:
            self._thread = threading.Thread(target=self._run, name="llamacpu-prepare", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for the end, with a bar. Raises what went wrong, once; Cancelled after `stop`."""
        self._stopped = False
        self._shown.set()
        thread = self._thread
        if thread is None:
            return
        try:
            while thread.is_alive():
                thread.join(_PAUSE)
                if self._stopped:
                    raise Cancelled("stopped while the model was being read")
                self._bar(*self._done)
        finally:
            self._bar.clear()
        self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def prompt_is_shown(self) -> None:
        """The user is typing."""
        self._shown.set()

    def stop(self) -> None:
        """End `wait`; the reading goes on. Signal handlers may call it."""
        self._stopped = True

    def close(self) -> None:
        """Stop reading."""
        self._cancel.cancel()
        self._shown.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        try:
            self._model.prepare(self._note, self._cancel)
            self._shown.wait()
            if not self._cancel.cancelled:
                self._then()
        except Cancelled:
            pass
        except Exception as error:
            self._error = error

    def _note(self, done: int, total: int) -> None:
        self._done = (done, total)
