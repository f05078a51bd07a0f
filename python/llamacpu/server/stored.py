"""The models of llamacpu's own store, on servers that allow clients to pull, copy and delete them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llamacpu.chat import check_template
from llamacpu.errors import Cancelled, StoreError
from llamacpu.server.errors import ApiError, invalid
from llamacpu.server.pool import Entry, ModelPool
from llamacpu.store import own
from llamacpu.store.create import create_over
from llamacpu.store.entries import entries, entry_of_file
from llamacpu.store.local import find
from llamacpu.store.modelfile import Modelfile
from llamacpu.store.names import REGISTRY, HubName, RegistryName, parse_name
from llamacpu.store.places import Places, places
from llamacpu.store.pull import Plan, Wanted, pull

if TYPE_CHECKING:
    from llamacpu.store.entries import Entry as StoredEntry

__all__ = ["Download", "Store"]

_DOWNLOADS = 2
_PROGRESS_SECONDS = 0.1


class Store:
    """The models of the store by name, in addition to those the server was started with, which clients cannot change.

    Names from clients are never treated as paths, and downloads come only from the registry and the hub.
    """

    def __init__(self, models: ModelPool) -> None:
        self._models = models
        self._downloads = 0
        models.elsewhere = self

    def find(self, name: str) -> Entry | None:
        """Return the model of the store with this name; None if there is none, or if the name is invalid."""
        try:
            found = find(name_of(name), _own(), own=True)
        except (ApiError, StoreError):
            return None
        return None if found is None or not found.path.is_file() else self._serve(found)

    def refresh(self) -> None:
        """Serve the current models of the store, which other programs may change as well."""
        there = {entry.name: entry for entry in entries(_own()) if entry.origin == "llamacpu" and entry.path.is_file()}
        for found in there.values():
            self._serve(found)
        names = {_short(name) for name in there}
        for entry in [entry for entry in self._models.entries.values() if entry.stored and entry.name not in names]:
            self._models.remove(entry)

    def download(self, name: str) -> Download:
        """Start to download a model into the store. Raises ApiError."""
        wanted = name_of(name)
        if self._downloads >= _DOWNLOADS:
            raise ApiError(
                429, f"{_DOWNLOADS} models are being downloaded already; ask again later", code="queue_full",
                retry_after=30,
            )  # fmt: skip
        self._downloads += 1

        def ended() -> None:
            self._downloads -= 1

        return Download(wanted, self._serve, ended)

    def copy(self, source: str, target: str) -> None:
        """Give a model a second name. Raises ApiError and StoreError."""
        found = self._models.find(source)
        if not isinstance(found.source, Path):
            raise invalid(f"{source} is an open model and no file; only files have other names", "source")
        name = name_of(target, "destination")
        if not isinstance(name, RegistryName):
            raise invalid(f"destination: {target!r} is a repository of the hub; expected a word such as my-model")
        self._check_owned(str(name))
        entry = find(name_of(source), _own(), own=True) if found.stored else None
        self._serve(own.copy(str(found.source) if entry is None else entry, name))

    def create(self, name: str, modelfile: Modelfile) -> None:
        """Store a model: new settings on top of a served one. Raises ApiError, StoreError and TemplateError."""
        base = self._models.find(modelfile.source)
        if not isinstance(base.source, Path):
            raise invalid(f"from: {modelfile.source} is an open model and no file; only files have other names", "from")
        wanted = name_of(name)
        if not isinstance(wanted, RegistryName):
            raise invalid(f"model: {name!r} is a repository of the hub; expected a word such as my-model", "model")
        self._check_owned(str(wanted))
        if modelfile.template:
            check_template(modelfile.template)
        found = None if base.named is None else find(base.named)
        made = create_over(found or entry_of_file(base.source), wanted, modelfile)
        older = self._models.entries.get(_short(made.name))
        if older is not None:
            self._models.remove(older)
        self._serve(made)

    def delete(self, name: str) -> None:
        """Remove a model. Raises ApiError and StoreError."""
        self._check_owned(name)
        wanted = name_of(name)
        if find(wanted, _own(), own=True) is None:
            raise ApiError(404, f"model {name!r} not found", "model", "model_not_found")
        removed = own.remove(wanted)
        entry = self._models.entries.get(_short(removed.name))
        if entry is not None and entry.stored:
            self._models.remove(entry)

    def _check_owned(self, name: str) -> None:
        """Raise ApiError for the name of a model that the server was started with."""
        for form in (name, _short(name)):
            entry = self._models.entries.get(self._models.aliases.get(form, form))
            if entry is not None and not entry.stored:
                raise ApiError(
                    403, f"{name} is a model that the server was started with; its files are not changed by clients",
                    "model", "not_permitted",
                )  # fmt: skip

    def _serve(self, found: StoredEntry) -> Entry:
        name = _short(found.name)
        entry = self._models.entries.get(name)
        if entry is not None and not entry.stored:
            return entry
        if entry is None or entry.source != found.path or entry.created != int(found.modified):
            if entry is not None:
                self._models.remove(entry)
            named = found.name if found.manifest is not None or found.projector is not None else None
            entry = Entry(name, found.path, int(found.modified), found.nbytes, stored=True, named=named)
            self._models.entries[name] = entry
        return entry


class Download:
    """A download in a thread: iterate over the lines that report its progress, in the format of Ollama's API."""

    def __init__(self, name: HubName | RegistryName, serve: Callable[[StoredEntry], Any], ended: Callable[[], None]):
        self._name = name
        self._serve = serve
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[dict[str, Any] | BaseException | StoredEntry] = asyncio.Queue()
        self._stopped = threading.Event()
        self._files: tuple[Wanted, ...] = ()
        self._told = (-1, 0.0)
        threading.Thread(target=self._run, name="llamacpu-download", daemon=True).start()

    def stop(self) -> None:
        """Stop the download. The part that has arrived is kept for the next attempt."""
        self._stopped.set()

    async def lines(self) -> AsyncIterator[dict[str, Any]]:
        """Yield progress lines, the last of which reports success. Raises what `pull` raises."""
        yield {"status": "pulling manifest"}
        while True:
            found = await self._queue.get()
            if isinstance(found, BaseException):
                raise found
            if isinstance(found, dict):
                yield found
                continue
            self._serve(found)
            for status in ("verifying sha256 digest", "writing manifest", "success"):
                yield {"status": status}
            return

    def _run(self) -> None:
        try:
            self._tell(pull(self._name, on_plan=self._planned, on_progress=self._progress))
        except BaseException as error:
            if isinstance(error, StoreError) and error.missing:
                error = ApiError(404, f"pull model manifest: {error}", "model", "model_not_found")
            self._tell(error)
        finally:
            self._call(self._ended)

    def _planned(self, plan: Plan) -> None:
        self._files = plan.files
        self._check()

    def _progress(self, done: int, _total: int) -> None:
        """Called often, from threads of the download."""
        self._check()
        number = 0
        while number < len(self._files) - 1 and done >= self._files[number].size:
            done -= self._files[number].size
            number += 1
        file, now = self._files[number], time.monotonic()
        if self._told[0] == number and now - self._told[1] < _PROGRESS_SECONDS and done < file.size:
            return
        self._told = number, now
        digest = file.sha256 or ""
        more = {"digest": f"sha256:{digest}"} if digest else {}
        what = digest[:12] or file.target.name
        self._tell({"status": f"pulling {what}", **more, "total": file.size, "completed": done})

    def _check(self) -> None:
        if self._stopped.is_set():
            raise Cancelled("the client went away")

    def _tell(self, what: Any) -> None:
        self._call(self._queue.put_nowait, what)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            # The server has ended in the meantime.
            self._stopped.set()


def name_of(name: str, field: str = "model") -> HubName | RegistryName:
    """Parse the name that a client gave. Raises ApiError for invalid names, including paths."""
    try:
        found = parse_name(name)
    except StoreError as error:
        raise invalid(f"{field}: {error}", field) from None
    if isinstance(found, RegistryName) and found.host != REGISTRY:
        raise invalid(f"{field}: {name!r} names the registry {found.host}; expected a model of {REGISTRY}", field)
    return found


def _own() -> Places:
    """Only llamacpu's own store: models of other programs' stores are not served to clients."""
    return replace(places(), ollama=(), hugging_face=(), lm_studio=(), llama_cpp=(), folders=())


def _short(name: str) -> str:
    return name.removesuffix(":latest")
