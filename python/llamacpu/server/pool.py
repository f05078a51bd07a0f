"""The models of a server by name: loaded on request, kept in memory, and unloaded to make room."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llamacpu.engine.interfaces import preset_of
from llamacpu.server.errors import ApiError
from llamacpu.server.served import Served
from llamacpu.server.sources import Source, Stored, bytes_of

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import ModelLike
    from llamacpu.server.settings import Settings
    from llamacpu.store.manifests import Preset

__all__ = ["Entry", "ModelPool"]

log: logging.Logger = logging.getLogger("llamacpu.server")

# Weights in the packed layout take up to this many times their size in the file.
_GROWTH = 1.22


@dataclass
class Entry:
    """A model that the server has a name for.

    served  the model in memory; None while it is not loaded
    stored  whether it is in llamacpu's own store, which clients may change
    named   its name in the model store, from which it may have settings; None if it has none
    """

    name: str
    source: Source
    created: int
    nbytes: int
    served: Served | None = None
    stored: bool = False
    named: str | None = None

    @property
    def preset(self) -> Preset:
        """The settings that come with its name. Raises StoreError if they cannot be read."""
        if self.served is not None:
            return self.served.model.preset
        from llamacpu.store.local import find

        found = None if self.named is None else find(self.named)
        return preset_of(self.source) if found is None else found.preset


class Elsewhere(Protocol):
    """A source of models besides those that the server was started with."""

    def find(self, name: str) -> Entry | None:
        """Return the model with this name, added to the entries of the pool; None if there is none."""

    def refresh(self) -> None:
        """Bring the entries of the pool into line with the models that exist now."""


class ModelPool:
    """The models of a server. Used only on the event loop; only opening a model runs in a thread.

    budget      total bytes that the models in memory may take; None for no limit
    keep_alive  seconds that an unused model stays in memory; None: until it has to make room
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        settings: Settings,
        *,
        aliases: Mapping[str, str] | None = None,
        threads: int | None = None,
        budget: int | None = None,
        keep_alive: float | None = None,
        run: Callable[..., Awaitable[Any]] = asyncio.to_thread,
    ) -> None:
        self.entries: dict[str, Entry] = {}
        for name, source in sources.items():
            named = source.name if isinstance(source, Stored) else None
            source = source.path if isinstance(source, Stored) else source
            created = int(source.stat().st_mtime) if isinstance(source, Path) else int(time.time())
            self.entries[name] = Entry(name, source, created, bytes_of(source), named=named)
        self.aliases: dict[str, str] = dict(aliases or {})
        for alias, name in self.aliases.items():
            if name not in self.entries:
                raise ValueError(f"the alias {alias} means {name}; expected one of {', '.join(self.entries)}")
            if alias in self.entries:
                raise ValueError(f"{alias} is an alias and the name of a model; choose another alias")
        if budget is not None and budget <= 0:
            raise ValueError(f"memory_budget is {budget}; expected bytes above 0, or None for no limit")
        self.settings = settings
        self.keep_alive = keep_alive
        self._threads = threads
        self._budget = budget
        self._run = run
        self._loading = asyncio.Lock()
        self.failed: str | None = None
        self.elsewhere: Elsewhere | None = None
        # Without a lifespan, no model is loaded before a request needs it.
        self.on_demand = True

    @property
    def default(self) -> Entry:
        """The model for requests that name none: the first one."""
        return next(iter(self.entries.values()))

    @property
    def loaded(self) -> list[Served]:
        """The models in memory."""
        return [entry.served for entry in self.entries.values() if entry.served is not None]

    @property
    def names(self) -> list[str]:
        """The names that clients may use as `model`."""
        if self.elsewhere is not None:
            self.elsewhere.refresh()
        return [*self.entries, *self.aliases]

    def find(self, name: str | None) -> Entry:
        """Return the model with this name or alias, with or without Ollama's ":latest". Raises ApiError (404)."""
        if not name:
            return self.default
        for form in (name, name.removesuffix(":latest"), name.removesuffix(".gguf")):
            entry = self.entries.get(self.aliases.get(form, form))
            if entry is not None:
                return entry
        elsewhere = None if self.elsewhere is None else self.elsewhere.find(name)
        if elsewhere is not None:
            return elsewhere
        known = ", ".join(self.names[:50])
        raise ApiError(404, f"there is no model {name[:200]!r}; there is {known}", "model", "model_not_found")

    async def take(self, name: str | None) -> Served:
        """Return a model for one request, loaded if necessary; pass it to `give_back` afterwards. Raises ApiError."""
        entry = self.find(name)
        async with self._loading:
            served = entry.served
            if served is None or self._stale(served):
                if served is not None:
                    self.unload(entry)
                served = await self._load(entry)
            served.users += 1
        return served

    def give_back(self, served: Served) -> None:
        """Release a model that a request no longer needs."""
        served.users -= 1
        served.used_at = time.monotonic()
        entry = self.entries.get(served.name)
        if served.expires_after == 0 and served.users == 0 and entry is not None and entry.served is served:
            self.unload(entry)

    def unload(self, entry: Entry) -> None:
        """Unload a model; running requests continue to use it until they end."""
        served, entry.served = entry.served, None
        if served is not None:
            served.close(self.settings.timeout if served.users else 0.0)

    def remove(self, entry: Entry) -> None:
        """Unload a model and remove its entry."""
        self.unload(entry)
        self.entries.pop(entry.name, None)

    def tidy(self) -> None:
        """Unload models whose keep-alive time has expired."""
        now = time.monotonic()
        for entry in self.entries.values():
            served = entry.served
            if served is None or served.users or not isinstance(entry.source, Path):
                continue
            if served.expires_after is not None and now - served.used_at >= served.expires_after:
                log.info("%s is unloaded: not used for %g seconds", served.name, served.expires_after)
                self.unload(entry)

    async def drain(self, seconds: float) -> None:
        """Give running answers at most this many seconds to finish, and then end them."""
        await asyncio.gather(*(served.engine.close_async(seconds) for served in self.loaded))

    def cancel(self) -> None:
        """End every answer within one step. May be called from any thread."""
        for served in self.loaded:
            served.close(0.0)

    def close(self) -> None:
        """Unload all models."""
        for entry in self.entries.values():
            self.unload(entry)

    def _stale(self, served: Served) -> bool:
        """Whether the file on disk has changed since it was opened."""
        source = self.entries[served.name].source
        if not isinstance(source, Path):
            return False
        try:
            now = source.stat()
        except OSError:
            return False
        return served.identity != (now.st_ino, now.st_size, now.st_mtime_ns)

    async def _load(self, entry: Entry) -> Served:
        source = entry.source
        if not isinstance(source, Path):
            entry.served = Served(entry.name, source, self.settings, entry.nbytes)
            return entry.served
        needed = int(bytes_of(source) * _GROWTH)
        self._make_room(entry.name, needed)
        try:
            state = source.stat()
            model: ModelLike = await self._run(self._open, entry.named or source)
        except OSError as error:
            words = error.strerror or "it cannot be read"
            raise ApiError(503, f"the model {entry.name} cannot be opened: {words}", retry_after=10) from None
        served = Served(entry.name, model, self.settings, needed)
        served.identity = (state.st_ino, state.st_size, state.st_mtime_ns)
        served.expires_after = self.keep_alive
        entry.served, entry.nbytes = served, state.st_size
        log.info("%s is loaded", entry.name)
        return served

    def _open(self, source: str | Path) -> ModelLike:
        from llamacpu.model import Model

        settings = self.settings
        lora, vectors = settings.lora or None, settings.control_vectors or None
        model = Model(
            source, threads=self._threads, lora=lora, control_vectors=vectors, mmproj=settings.mmproj,
            image_tokens=settings.image_tokens, image_crops=settings.image_crops, duty=settings.duty,
        )  # fmt: skip
        # Created now, so that a broken tokenizer is an error of loading the model and not of the first request.
        _ = model.tokenizer
        return model

    def _make_room(self, name: str, needed: int) -> None:
        if self._budget is None:
            return
        unused = sorted((served for served in self.loaded if self._idle(served)), key=lambda served: served.used_at)
        taken = sum(served.nbytes for served in self.loaded)
        for served in unused:
            if taken + needed <= self._budget:
                break
            log.info("%s is unloaded, to make room for %s", served.name, name)
            self.unload(self.entries[served.name])
            taken -= served.nbytes
        if taken + needed > self._budget and self.loaded:
            raise ApiError(
                503, f"the model {name} needs {needed >> 20} MiB, and the models that answer now leave "
                f"{max(self._budget - taken, 0) >> 20} MiB; ask again later", code="no_memory", retry_after=10,
            )  # fmt: skip

    def _idle(self, served: Served) -> bool:
        return served.users == 0 and isinstance(self.entries[served.name].source, Path)
