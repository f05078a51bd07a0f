"""Finding the model that a name refers to among those on this machine."""

from __future__ import annotations

import fnmatch
from pathlib import Path

from llamacpu.store.entries import (
    Entry,
    entries,
    entry_of_file,
    entry_of_manifest,
    manifest_path,
    quantization,
    stem_of,
)
from llamacpu.store.names import HubName, RegistryName, parse
from llamacpu.store.places import Places, places

__all__ = ["find"]


def find(name: str | HubName | RegistryName, where: Places | None = None, *, own: bool = False) -> Entry | None:
    """Return the model of this name, None if it has to be downloaded first. own: look only in our own store.

    A path is returned as it is, whether or not the file exists. Raises StoreError for an invalid name and for a damaged
    manifest.
    """
    where = where or places()
    wanted = parse(name) if isinstance(name, str) else name
    if isinstance(wanted, Path):
        return (
            entry_of_file(wanted, name=str(wanted))
            if wanted.suffix.lower() == ".gguf"
            else Entry(str(wanted), "folder", (wanted,))
        )
    if isinstance(wanted, HubName):
        return _of_hub(wanted, where, own)
    for root in (where.own,) if own else (where.own, *where.ollama):
        file = manifest_path(root, wanted)
        if file.is_file():
            return entry_of_manifest(file, root, wanted, "llamacpu" if root == where.own else "ollama")
    return None if own else _by_stem(str(name), where)


def _of_hub(wanted: HubName, where: Places, own: bool) -> Entry | None:
    repository = wanted.repository + ("" if wanted.revision == "main" else f"@{wanted.revision}")
    found = [
        entry
        for entry in entries(where)
        if entry.repository is not None
        and entry.repository.lower() == repository.lower()
        and (not own or entry.origin == "llamacpu")
        and all(file.is_file() for file in entry.files)
    ]
    if wanted.selector is None:
        return max(found, key=lambda entry: entry.modified, default=None)
    return next((entry for entry in found if selected(entry.path.name, wanted.selector)), None)


def selected(file: str, selector: str) -> bool:
    """Return whether a selector (a quantization, a file name or a pattern) matches this file."""
    name, wanted = file.rpartition("/")[2].lower(), selector.rpartition("/")[2].lower()
    stem = stem_of(Path(name))
    if stem_of(Path(wanted)) == stem:
        return True
    level = quantization(stem)
    return (level is not None and level.lower() == wanted) or ("*" in wanted and fnmatch.fnmatch(name, wanted))


def _by_stem(name: str, where: Places) -> Entry | None:
    """Find a file by its name without the extension."""
    lower = name.lower().removesuffix(":latest")
    return next((entry for entry in entries(where) if lower in (entry.name.lower(), stem_of(entry.path).lower())), None)
