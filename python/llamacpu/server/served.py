"""One model in memory: its sessions, its chat template, and who uses it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from llamacpu.chat import Chat
from llamacpu.errors import Cancelled
from llamacpu.locks import cached_property

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, ModelLike, SessionLike
    from llamacpu.server.settings import Settings

__all__ = ["Served"]


class Served:
    """A model that answers requests.

    name    what clients call it
    model   the model, or one that shares its steps among sessions
    users   requests that use it now
    """

    def __init__(self, name: str, model: ModelLike, settings: Settings, nbytes: int) -> None:
        self.name = name
        self.model = model
        self.nbytes = nbytes
        self.users = 0
        self.loaded_at = time.time()
        self.used_at = time.monotonic()
        # None: until it has to make room for another.
        self.expires_after: float | None = None
        # Of the file: number, size and time of change; what is opened later is compared with it.
        self.identity: tuple[int, int, int] | None = None
        self._settings = settings
        self._one = threading.Lock()
        self._session: SessionLike | None = None

    @cached_property
    def chat(self) -> Chat:
        """How the model is talked to."""
        return Chat.of(self.model)

    @property
    def context(self) -> int:
        """Most tokens of a conversation."""
        return min(self._settings.context or self.model.context_length, 1 << 30)

    @contextmanager
    def session_for(self, ids: list[int], cancel: CancelToken) -> Iterator[SessionLike]:
        """A session; see `Sessions`."""
        while not self._one.acquire(timeout=0.1):
            if cancel.cancelled:
                raise Cancelled("the request was cancelled while it waited")
        try:
            if self._session is None:
                self._session = self.model.session(self._settings.context, self._settings.kv_type)
            yield self._session
        finally:
            self._one.release()
