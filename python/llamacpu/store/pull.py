"""Downloading a model into our own store: first a plan from its header, then the files, finally the name."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacpu.errors import StoreError
from llamacpu.memory import available_memory
from llamacpu.store import own
from llamacpu.store.download import Progress, download
from llamacpu.store.entries import Entry, entry_of_file, entry_of_manifest, manifest_path
from llamacpu.store.header import remote_facts
from llamacpu.store.manifests import blob_name
from llamacpu.store.names import HubName, RegistryName, parse
from llamacpu.store.places import Places, places
from llamacpu.store.registry import look_up
from llamacpu.store.repository import LICENSES, Candidate, Repository, choose, hub_headers, list_files, refused
from llamacpu.store.transfer import HttpError

__all__ = ["Plan", "Wanted", "plan_of", "pull"]

_ROOM = 1.1
"""The memory that a model needs at most, relative to its file size, if its header could not be read."""


@dataclass(frozen=True)
class Wanted:
    """A file to download. missing: bytes not downloaded yet; stale: the existing file is an older version."""

    url: str
    target: Path
    size: int
    sha256: str | None
    headers: Mapping[str, str]
    missing: int
    stale: bool = False


@dataclass(frozen=True)
class Plan:
    """What a download would involve.

    name        the model's name with the chosen quantization
    files       the files that would be downloaded, in order
    facts       as returned by `header_facts`; None if the header could not be read by itself
    free_bytes  free bytes on the disk that holds the store
    others      the other available quantizations, the largest first
    chosen      whether the quantization was chosen automatically rather than by the name
    """

    name: str
    files: tuple[Wanted, ...]
    facts: dict[str, Any] | None
    free_bytes: int
    others: tuple[str, ...]
    chosen: bool
    finish: Callable[[], Entry]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def missing_bytes(self) -> int:
        """Bytes still to be downloaded."""
        return sum(file.missing for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        """Return plain facts for JSON."""
        facts = dict(self.facts or {})
        return {
            "name": self.name, "chosen": self.chosen, "others": list(self.others), "size_bytes": self.size_bytes,
            "missing_bytes": self.missing_bytes, "free_disk_bytes": self.free_bytes, **facts,
        }  # fmt: skip

    def check(self) -> None:
        """Raise StoreError if the model would not run, or would not fit into memory or on the disk."""
        if self.missing_bytes > self.free_bytes:
            raise StoreError(
                f"{self.name} needs {self.missing_bytes / 1e9:.1f} GB of disk, {self.free_bytes / 1e9:.1f} GB are "
                "free; make room, name another folder in LLAMACPU_MODELS, or use --force"
            )
        facts = self.facts
        if facts is not None and not facts["runs"]:
            raise StoreError(f"{self.name} would not run here: {facts['problem']}; use --force to get it all the same")
        if facts is not None and facts["fits"] is False:
            raise StoreError(
                f"{self.name} needs {facts['memory_bytes'] / 1e9:.1f} GB of memory with {facts['context']} tokens of "
                f"context, {facts['available_bytes'] / 1e9:.1f} GB are free; name a smaller model or quantization, "
                "give a smaller -c, or use --force"
            )


def plan_of(
    name: str | HubName | RegistryName, where: Places | None = None, context: int | None = None, kv_type: str = "f16"
) -> Plan:
    """Return what `pull` would do. Only file lists and the beginning of the file are fetched."""
    where = where or places()
    wanted = parse(name) if isinstance(name, str) else name
    if isinstance(wanted, HubName):
        return _of_hub(wanted, where, context, kv_type)
    if isinstance(wanted, RegistryName):
        return _of_registry(wanted, where, context, kv_type)
    raise StoreError(f"{name} is a path, from which nothing can be pulled; give a name")


def pull(
    name: str | HubName | RegistryName,
    where: Places | None = None,
    *,
    context: int | None = None,
    kv_type: str = "f16",
    force: bool = False,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: Progress | None = None,
) -> Entry:
    """Download the model that a name refers to into our own store, and return it.

    context, kv_type  the context and storage of keys and values that it has to fit with; see `header_facts`
    force             download it even if it would not fit or run
    on_plan           called before the download; an exception stops it

    Raises StoreError. Downloads resume from an earlier attempt.
    """
    plan = plan_of(name, where, context, kv_type)
    if on_plan is not None:
        on_plan(plan)
    if not force:
        plan.check()
    done, total = 0, plan.size_bytes
    for file in plan.files:
        base = done

        def tell(here: int, _size: int, base: int = base) -> None:
            if on_progress is not None:
                on_progress(base + here, total)

        try:
            download(file.url, file.target, file.size, file.sha256, file.headers, tell, again=file.stale)
        except HttpError as error:
            wanted = parse(name) if isinstance(name, str) else name
            raise (refused(error, wanted) if isinstance(wanted, HubName) else error) from None
        done += file.size
    return plan.finish()


def _free(folder: Path) -> int:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        return shutil.disk_usage(folder).free
    except OSError as error:
        raise StoreError(f"{folder}: {error.strerror}; LLAMACPU_MODELS names another folder") from None


def _wanted(
    url: str, target: Path, size: int, sha256: str | None, headers: Mapping[str, str], stale: bool = False
) -> Wanted:
    here = not stale and target.is_file() and target.stat().st_size == size
    return Wanted(url, target, size, sha256, headers, 0 if here else size, stale)


def _of_registry(name: RegistryName, where: Places, context: int | None, kv_type: str) -> Plan:
    remote = look_up(name)
    blobs = where.own / "blobs"
    layers = sorted({layer.digits: layer for layer in remote.manifest.blobs}.values(), key=lambda layer: layer.size)
    files = tuple(
        _wanted(remote.blob(layer), blobs / blob_name(layer.digits), layer.size, layer.digits, remote.headers)
        for layer in layers
    )
    model = remote.model
    facts = remote_facts(remote.blob(model), model.size, remote.headers, context, kv_type, None)

    def finish() -> Entry:
        file = manifest_path(where.own, name)
        own.write_manifest(where.own, name, remote.data)
        return entry_of_manifest(file, where.own, name, "llamacpu")

    return Plan(str(name), files, facts, _free(where.own), (), False, finish)


def _of_hub(name: HubName, where: Places, context: int | None, kv_type: str) -> Plan:
    repository = list_files(name)
    headers = hub_headers()
    try:
        candidate, facts = _best(repository, headers, context, kv_type)
    except HttpError as error:
        raise refused(error, name) from None
    folder = own.hub_folder(where.own, name)
    record = own.read_record(folder)
    small = [file for file in repository.files if file.path in LICENSES and file.size < 1 << 20]
    projector = [repository.projector] if repository.projector else []
    files = tuple(
        _wanted(
            repository.url(file.path), folder / file.path, file.size, file.sha256, headers,
            record.get(file.path, file.sha256) != file.sha256,
        )
        for file in (*small, *projector, *candidate.files)
    )  # fmt: skip

    def finish() -> Entry:
        own.write_record(folder, record | {file.path: file.sha256 for file in candidate.files})
        return entry_of_file(folder / candidate.files[0].path, "llamacpu", shown, own.repository_of(name))

    shown = f"hf:{name.repository}:{candidate.quantization or Path(candidate.files[0].path).name}"
    others = tuple(one.quantization or one.name for one in repository.candidates if one != candidate)
    return Plan(shown, files, facts, _free(where.own), others, name.selector is None, finish)


def _best(
    repository: Repository, headers: Mapping[str, str], context: int | None, kv_type: str
) -> tuple[Candidate, dict[str, Any] | None]:
    """Return the first model that fits, or the smallest if none does, with its facts."""
    candidates = choose(repository)

    def facts_of(one: Candidate) -> dict[str, Any] | None:
        first = one.files[0]
        if len(one.files) > 1:
            return None
        return remote_facts(repository.url(first.path), first.size, headers, context, kv_type, one.quantization)

    first = facts_of(candidates[0])
    available = available_memory()
    if len(candidates) == 1 or available is None:
        return candidates[0], first
    # Keys and values take the same memory, however the weights are stored.
    more = first["memory_bytes"] - first["weight_bytes"] if first is not None and first["runs"] else None

    def fits(one: Candidate) -> bool:
        return (one.size + more if more is not None else one.size * _ROOM) <= available

    found = next((one for one in candidates if fits(one)), min(candidates, key=lambda one: one.size))
    return found, first if found is candidates[0] else facts_of(found)
