"""Where an adapter and its base model lie: at a path, among the models of this machine, or on the Hugging Face Hub."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

from llamacpu.errors import CheckpointError, StoreError
from llamacpu.store.download import download
from llamacpu.store.names import HubName
from llamacpu.store.own import hub_folder
from llamacpu.store.places import Places, offline, places
from llamacpu.store.repository import hub_headers, list_files, refused
from llamacpu.store.transfer import HttpError
from llamacpu.tools.convert.hub import file_on_this_machine, hub_name
from llamacpu.tools.convert_lora.settings import CONFIG

__all__ = ["ADAPTER_FILES", "find_adapter", "find_base"]

Progress = Callable[[int, int], None]
ADAPTER_FILES = ("adapter_model.safetensors", "adapter_model.bin")


def find_adapter(source: str | os.PathLike[str], on_download: Progress | None = None) -> Path:
    """Return the folder of an adapter: that of the path, or of the repository on the hub ("owner/adapter").

    The hub's cache and our own store are searched first; what is in neither is downloaded to our store. Raises
    CheckpointError for what is neither a folder nor such a name, StoreError if it cannot be downloaded.
    """
    if Path(source).exists():
        return Path(source)
    name = hub_name(os.fspath(source))
    if name is None:
        raise CheckpointError(f"{os.fspath(source)!r:.200}: there is no such folder; give that of an adapter")
    return _folder(name, [(CONFIG,), ADAPTER_FILES], ["README.md"], on_download)


def find_base(base: str | os.PathLike[str], on_download: Progress | None = None) -> Path:
    """Return the GGUF file or the folder of a base model, of which config.json suffices.

    base: a path, the name of a model on this machine, or of a repository on the hub, whose config.json is downloaded.
    Raises CheckpointError if it is none of these, StoreError if nothing can be downloaded.
    """
    if Path(base).exists():
        return Path(base)
    text = os.fspath(base)
    file = file_on_this_machine(text)
    if file is not None:
        return file
    name = hub_name(text)
    if name is None:
        raise CheckpointError(
            f"{text!r:.200}: there is no such base model on this machine; give its folder or its GGUF file (--base)"
        )
    return _folder(name, [("config.json",)], [], on_download)


def _folder(
    name: HubName, needed: Sequence[Sequence[str]], wanted: Sequence[str], on_download: Progress | None
) -> Path:
    """A folder that has one file of each group in `needed`; if it is downloaded, those in `wanted`, too."""
    where = places()
    for folder in (*_snapshots(where, name), hub_folder(where.own, name)):
        if all(any((folder / file).is_file() for file in group) for group in needed):
            return folder
    if offline():
        raise StoreError(
            f"{name.repository} is not on this machine, and the settings forbid to download it", missing=True
        )
    repository = list_files(name)
    there = {file.path: file for file in repository.files}
    files = [there[path] for path in wanted if path in there]
    for group in needed:
        path = next((path for path in group if path in there), None)
        if path is None:
            raise CheckpointError(f"{name.repository}: there is no {' or '.join(group)} in this repository")
        files.append(there[path])
    total, done = sum(file.size for file in files), 0
    # What makes the folder complete comes last.
    for file in sorted(files, key=lambda file: file.path in ("config.json", CONFIG)):

        def tell(here: int, _size: int, before: int = done) -> None:
            if on_download is not None:
                on_download(before + here, total)

        try:
            target = hub_folder(where.own, name) / file.path
            download(repository.url(file.path), target, file.size, file.sha256, hub_headers(), tell)
        except HttpError as error:
            raise refused(error, name) from None
        done += file.size
    return hub_folder(where.own, name)


def _snapshots(where: Places, name: HubName) -> list[Path]:
    found = []
    for root in where.hugging_face:
        folder = root / f"models--{name.repository.replace('/', '--')}"
        try:
            revision = (folder / "refs" / name.revision).read_text("utf-8").strip()
        except (OSError, ValueError):
            revision = name.revision
        if revision and PurePosixPath(revision).name == revision:
            found.append(folder / "snapshots" / revision)
    return found
