"""One model in memory: its engine, its chat template, and the requests that use it."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.chat import Chat
from llamacpu.drafting import open_draft
from llamacpu.engine.model import EngineModel
from llamacpu.locks import cached_property
from llamacpu.pictures.source import PictureAccess
from llamacpu.scheduler import Engine
from llamacpu.server.adapters import ServedAdapters
from llamacpu.server.errors import ApiError

if TYPE_CHECKING:
    from llamacpu.answers import Question
    from llamacpu.drafting import Draft
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.generation.context_window import Overflow
    from llamacpu.scheduler import Request, ScheduledModel
    from llamacpu.server.settings import Settings

__all__ = ["Served"]


class Served:
    """A model that answers requests.

    name           the name that clients use
    nbytes         bytes of memory of its weights
    users          number of requests that use it now
    expires_after  seconds that it stays in memory unused; None: until it has to make room for another model
    identity       inode, size and modification time (ns) of its file, compared with those of the file on disk
    """

    def __init__(self, name: str, model: ModelLike, settings: Settings, nbytes: int) -> None:
        self.name = name
        self.nbytes = nbytes
        self.users = 0
        self.loaded_at: float = time.time()
        self.used_at: float = time.monotonic()
        self.expires_after: float | None = None
        self.identity: tuple[int, int, int] | None = None
        self._settings = settings
        self.adapters: ServedAdapters = ServedAdapters(model, settings.lora)
        self._draft: Draft | None = None
        if settings.draft_model is not None and isinstance(model, EngineModel):
            self._draft = open_draft(model, settings.draft_model)
        try:
            self.engine: Engine = Engine(
                model, context=settings.context, kv_type=settings.kv_type, max_running=settings.parallel,
                max_queue=settings.queue, timeout=settings.timeout, memory=settings.kv_memory,
                prefix_cache_directory=settings.prefix_cache, prefix_cache_disk_bytes=settings.prefix_cache_bytes,
            )  # fmt: skip
        except OSError as error:
            # The message comes from the operating system; the path of the folder is not revealed to clients.
            raise ApiError(
                503, f"the folder of the prefix cache cannot be used: {error.strerror}; whoever runs the server can "
                "name another one with --prefix-cache",
            ) from error  # fmt: skip

    @property
    def model(self) -> ScheduledModel:
        """The model, whose steps are shared by all its sessions."""
        return self.engine.model

    @cached_property
    def chat(self) -> Chat:
        """The chat format of the model."""
        return Chat.of(self.model)

    @property
    def access(self) -> PictureAccess:
        """Where pictures of clients may come from, besides data URLs."""
        return PictureAccess(self._settings.image_files, self._settings.image_addresses)

    @property
    def context(self) -> int:
        """Maximum number of tokens in a conversation."""
        return self.engine.context

    def submit(
        self,
        question: Question,
        client: str,
        timeout: float | None = None,
        overflow: Overflow = "error",
        lora: Sequence[Any] | None = None,
        reports: bool = False,
    ) -> Request:
        """Start to answer a question; timeout: seconds; lora: the adapters that the request names.

        reports: whether the request tells how much of its prompt is processed.

        Raises what `Engine.submit` raises.
        """
        longest = self._settings.timeout
        seconds = min(timeout or longest, longest)
        adapters = self.adapters.chosen(lora)
        return self.engine.submit(
            question, client=client, timeout=seconds, overflow=overflow, reports=reports, lora=adapters,
            draft="auto" if self._draft is None else self._draft,
        )  # fmt: skip

    def close(self, drain: float) -> None:
        """Close the engine in a thread, giving running requests at most `drain` seconds to finish."""
        threading.Thread(target=self._close, args=(drain,), name="llamacpu-unload", daemon=True).start()

    def _close(self, drain: float) -> None:
        self.engine.close(drain)
        if self._draft is not None:
            self._draft.close()
