"""Our own store, the only folder that is written to: manifests and blobs as in Ollama's, and files of the hub.

manifests/<registry>/<namespace>/<model>/<tag>    blobs/sha256-<digits>    hub/<owner>/<repository>/<file>
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from llamacpu.errors import StoreError
from llamacpu.store.entries import Entry, manifest_path
from llamacpu.store.local import find
from llamacpu.store.manifests import MODEL, PROJECTOR, Layer, Manifest, blob_name, read_manifest
from llamacpu.store.names import HubName, RegistryName, parse
from llamacpu.store.places import Places, places

__all__ = [
    "copy", "hub_folder", "own_name", "read_record", "remove", "repository_of", "write_blob", "write_manifest",
    "write_record",
]  # fmt: skip

_RECORD = ".llamacpu.json"
_LARGEST_RECORD = 1 << 20


def repository_of(name: HubName) -> str:
    """Return the folder of a repository; a revision other than main has its own."""
    return name.repository + ("" if name.revision == "main" else f"@{name.revision}")


def hub_folder(root: Path, name: HubName) -> Path:
    """Return where files of a repository are stored."""
    return root.joinpath("hub", *repository_of(name).split("/"))


def read_record(folder: Path) -> dict[str, str | None]:
    """Read the record of what was downloaded there: file -> sha256."""
    try:
        with (folder / _RECORD).open("rb") as file:
            found = json.loads(file.read(_LARGEST_RECORD))
        return {str(name): digest for name, digest in found.items() if digest is None or isinstance(digest, str)}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}


def write_record(folder: Path, record: Mapping[str, str | None]) -> None:
    """Write the record of what was downloaded."""
    _put(folder / _RECORD, json.dumps(record).encode())


def write_blob(root: Path, kind: str, data: bytes) -> Layer:
    """Store a small layer as a blob."""
    import hashlib

    digits = hashlib.sha256(data).hexdigest()
    path = root / "blobs" / blob_name(digits)
    if not path.is_file():
        _put(path, data)
    return Layer(kind, digits, len(data))


def write_manifest(root: Path, name: RegistryName, data: bytes) -> None:
    """Store a model's manifest under its name; remove blobs that only its older manifest referred to."""
    file = manifest_path(root, name)
    older = _layers(file)
    _put(file, data)
    _prune(root, older)


def own_name(name: str) -> RegistryName:
    """Parse a name for a model in our own store. Raises StoreError if it cannot be one."""
    wanted = parse(name)
    if not isinstance(wanted, RegistryName):
        raise StoreError(
            f"{name!r} cannot be the name of a model of your own; expected a word such as my-model or my-model:v2"
        )
    return wanted


def copy(source: str | Entry, target: str | RegistryName, where: Places | None = None) -> Entry:
    """Give a model a second name in our own store. Weights are not copied, wherever they are stored."""
    where = where or places()
    name = own_name(target) if isinstance(target, str) else target
    entry = find(source, where) if isinstance(source, str) else source
    if entry is None:
        raise StoreError(f"{source} is not on this machine; `llamacpu list` shows what is")
    write_manifest(where.own, name, manifest_of(entry, where).as_bytes())
    found = find(name, where, own=True)
    assert found is not None
    return found


def manifest_of(entry: Entry, where: Places, kinds: Iterable[str] | None = None) -> Manifest:
    """Return a manifest for our own store that refers to a model's files where they are."""
    if not entry.path.is_file():
        raise StoreError(f"{entry.path}: no such file; check the path")
    if entry.manifest is None:
        layers = [Layer(MODEL, "", entry.nbytes, os.path.abspath(entry.path))]  # noqa: PTH100 (keeps links)
        if entry.projector is not None:
            layers.append(Layer(PROJECTOR, "", entry.projector.stat().st_size, os.path.abspath(entry.projector)))  # noqa: PTH100
        return Manifest(tuple(layers))
    if entry.blobs == where.own / "blobs":
        return Manifest(entry.manifest.layers)
    assert entry.blobs is not None
    return Manifest(
        tuple(Layer(one.kind, "", one.size, str(entry.blobs / blob_name(one.digits))) for one in entry.manifest.layers)
    )


def remove(name: str | HubName | RegistryName, where: Places | None = None) -> Entry:
    """Remove a model from our own store, with the blobs that no other model needs.

    Raises StoreError for a model that is not in the store; models of other programs must be removed there.
    """
    where = where or places()
    wanted = parse(name) if isinstance(name, str) else name
    entry = None if isinstance(wanted, Path) else find(wanted, where, own=True)
    if entry is None or entry.origin != "llamacpu":
        other = find(name, where)
        if other is not None and other.path.is_file():
            raise StoreError(
                f"{name} belongs to {other.origin} ({other.path}), which llamacpu never changes; remove it there"
            )
        raise StoreError(f"{name} is not among the models of llamacpu; `llamacpu list` shows what is")
    if entry.manifest_file is not None:
        layers = _layers(entry.manifest_file)
        entry.manifest_file.unlink()
        _remove_empty(entry.manifest_file.parent, where.own)
        _prune(where.own, layers)
        return entry
    for file in entry.files:
        file.unlink(missing_ok=True)
    folder = entry.path.parent
    if not any(file.suffix.lower() == ".gguf" and file != entry.projector for file in folder.iterdir()):
        for file in list(folder.iterdir()):
            if file.is_file():
                file.unlink()
        _remove_empty(folder, where.own)
    return entry


def _layers(file: Path) -> list[Layer]:
    try:
        return read_manifest(file.read_bytes(), str(file), own=True).blobs
    except (OSError, StoreError):
        return []


def _prune(root: Path, layers: Iterable[Layer]) -> None:
    used = {layer.digits for file in (root / "manifests").rglob("*") if file.is_file() for layer in _layers(file)}
    for layer in layers:
        if layer.digits not in used:
            with contextlib.suppress(OSError):
                (root / "blobs" / blob_name(layer.digits)).unlink()


def _remove_empty(folder: Path, root: Path) -> None:
    while folder != root and root in folder.parents:
        try:
            folder.rmdir()
        except OSError:
            return
        folder = folder.parent


def _put(path: Path, data: bytes) -> None:
    """Write a small file atomically."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}; LLAMACPU_MODELS names another folder") from None
