"""Where a checkpoint is: in a folder, or on the Hugging Face Hub and then in its cache or in our store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from llamacpu.errors import CheckpointError, StoreError
from llamacpu.store.download import download
from llamacpu.store.names import HubName, parse
from llamacpu.store.own import hub_folder
from llamacpu.store.places import Places, offline, places
from llamacpu.store.repository import RemoteFile, hub_headers, list_files, refused
from llamacpu.store.transfer import HttpError

__all__ = ["Place", "find_checkpoint", "wanted_files"]

Progress = Callable[[int, int], None]
_SMALL = (".json", ".jinja", ".model", ".txt")
_FOLDERS = ("1_Pooling/", "additional_chat_templates/")
_LARGEST_SMALL = 64 << 20
_COMPLETE = ".checkpoint"  # lies in a folder of the store when everything has been downloaded


class Place(NamedTuple):
    """A folder, and the name of the model in it as the hub has it (or the folder's)."""

    folder: Path
    name: str


def find_checkpoint(source: str | os.PathLike[str], on_download: Progress | None = None) -> Place:
    """The folder (or the file of tensors) of a checkpoint, and its name.

    source: a path, or a name on the hub ("owner/model", also with "hf:" in front or as the address of its page). The
    hub's cache and our own store are searched first; what is in neither is downloaded to our store, unless
    HF_HUB_OFFLINE or LLAMACPU_OFFLINE is set.

    Raises StoreError if there is no such model, CheckpointError for a name that is neither.
    """
    path = Path(source)
    if path.exists():
        return Place(path, _name(path.resolve() if path.is_dir() else path.resolve().parent))
    text = os.fspath(source)
    name = None
    if ":" in text or (text.count("/") == 1 and not text.startswith((".", "/", "~"))):
        name = parse(text if ":" in text else f"hf:{text}")
    if not isinstance(name, HubName) or name.selector:
        raise CheckpointError(f"{text!r:.200}: there is no such folder; give one, or a name on the hub: owner/model")
    where = places()
    folder = _cached(where, name) or _stored(where, name)
    if folder is None and offline():
        raise StoreError(
            f"{name.repository} is not on this machine, and the settings forbid to download it", missing=True
        )
    return Place(folder or _downloaded(where, name, on_download), name.repository)


def _name(folder: Path) -> str:
    """The name of a folder; in the hub's cache, that of the repository."""
    above = folder.parent.parent
    if folder.parent.name == "snapshots" and above.name.startswith("models--"):
        return above.name.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def _cached(where: Places, name: HubName) -> Path | None:
    for root in where.hugging_face:
        folder = root / f"models--{name.repository.replace('/', '--')}"
        try:
            revision = (folder / "refs" / name.revision).read_text("utf-8").strip()
        except (OSError, ValueError):
            revision = name.revision
        snapshot = folder / "snapshots" / revision
        if revision and PurePosixPath(revision).name == revision and _is_complete(snapshot):
            return snapshot
    return None


def _stored(where: Places, name: HubName) -> Path | None:
    folder = hub_folder(where.own, name)
    return folder if (folder / _COMPLETE).is_file() and _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return any(entry.suffix in (".safetensors", ".bin") for entry in folder.iterdir())


def wanted_files(files: Iterable[RemoteFile]) -> list[RemoteFile]:
    """The files of a repository that make up a checkpoint: the tensors in one form, and what describes the model."""
    found = [file for file in files if "/" not in file.path or file.path.startswith(_FOLDERS)]
    small = [
        file
        for file in found
        if file.path == "README.md" or (file.path.endswith(_SMALL) and file.size <= _LARGEST_SMALL)
    ]
    for kind in (("model", ".safetensors"), ("pytorch_model", ".bin"), ("", ".safetensors")):
        tensors = [file for file in found if file.path.startswith(kind[0]) and file.path.endswith(kind[1])]
        if tensors:
            return small + tensors
    return []


def _downloaded(where: Places, name: HubName, on_download: Progress | None) -> Path:
    repository = list_files(name)
    files = wanted_files(repository.files)
    if not any(file.path == "config.json" for file in files):
        raise CheckpointError(f"{name.repository}: no checkpoint of transformers; expected config.json and safetensors")
    folder = hub_folder(where.own, name)
    total, done = sum(file.size for file in files), 0
    for file in files:

        def tell(here: int, _size: int, base: int = done) -> None:
            if on_download is not None:
                on_download(base + here, total)

        try:
            url = repository.url(file.path)
            download(url, folder / file.path, file.size, file.sha256, hub_headers(), tell)
        except HttpError as error:
            raise refused(error, name) from None
        done += file.size
    (folder / _COMPLETE).touch()
    return folder
