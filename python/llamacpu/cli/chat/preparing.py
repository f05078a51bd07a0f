"""Reading the model while the user types."""

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
    """A thread that reads a model's weights ahead if stderr is a terminal; otherwise the first step reads them."""

    def __init__(self, model: ModelLike, then: Callable[[], object]) -> None:
        """Start reading.

        then: called in that thread afterwards, but not before `prompt_is_shown`, so that it does not delay the prompt.
        """
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
        """Wait until the model has been read, showing a progress bar.

        Raises the error of the thread, once, and Cancelled after `stop`.
        """
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
        """Note that the prompt is shown: the user is typing, and `then` may run."""
        self._shown.set()

    def stop(self) -> None:
        """End `wait` while the thread goes on reading. Safe to call from signal handlers."""
        self._stopped = True

    def close(self) -> None:
        """Stop reading, and wait for the thread to end."""
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
