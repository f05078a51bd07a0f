"""Where a checkpoint is: in a folder, or on the Hugging Face Hub and then in its cache or in our store.

Of a model that another one was made for (the target of a drafter), the description is enough: the small files.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from llamacpu.errors import CheckpointError, StoreError
from llamacpu.store.download import download
from llamacpu.store.local import find
from llamacpu.store.names import HubName, RegistryName, parse
from llamacpu.store.own import hub_folder
from llamacpu.store.places import Places, offline, places
from llamacpu.store.repository import RemoteFile, hub_headers, list_files, refused
from llamacpu.store.transfer import HttpError

__all__ = ["Place", "file_on_this_machine", "find_checkpoint", "find_description", "hub_name", "wanted_files"]

Progress = Callable[[int, int], None]
_SMALL = (".json", ".jinja", ".model", ".txt")
_FOLDERS = ("1_Pooling/", "additional_chat_templates/")
_LARGEST_SMALL = 64 << 20
# One of these lies in a folder of the store when everything, or all but the tensors, has been downloaded.
_COMPLETE, _DESCRIBED = ".checkpoint", ".description"


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
    folder = _cached(where, name, _is_complete) or _stored(where, name)
    return Place(folder or _downloaded(where, name, on_download), name.repository)


def find_description(source: str | os.PathLike[str], what: str, on_download: Progress | None = None) -> Path:
    """The folder of a model with config.json and the tokenizer, or its GGUF file.

    source: a path, the name of a model on this machine, or of a repository on the hub, whose small files are
    downloaded to our store if they are not here. what: the model in messages ("target model").

    Raises CheckpointError for what is none of these, StoreError if it cannot be downloaded.
    """
    text = os.fspath(source)
    found = Path(source) if Path(source).exists() else file_on_this_machine(text)
    if found is not None:
        return found
    name = hub_name(text)
    if name is None:
        raise CheckpointError(f"{text!r:.200}: there is no such {what}; give its folder, its GGUF file or its name")
    where = places()
    own = hub_folder(where.own, name)
    folder = own if any((own / mark).is_file() for mark in (_COMPLETE, _DESCRIBED)) else None
    return _cached(where, name, _is_described) or folder or _downloaded(where, name, on_download, tensors=False)


def file_on_this_machine(text: str) -> Path | None:
    """The GGUF file of a model that has this name on this machine."""
    try:
        wanted = parse(text)
        entry = find(wanted) if isinstance(wanted, (HubName, RegistryName)) else None
    except StoreError:
        return None
    return entry.path if entry is not None and entry.path.is_file() else None


def hub_name(text: str) -> HubName | None:
    """The repository that a text names: owner/name, also with "hf:" in front or as the address of its page."""
    if text.startswith((".", "/", "~")) or "/" not in text:
        return None
    try:
        name = parse(text if ":" in text else f"hf:{text}")
    except StoreError:
        return None
    return name if isinstance(name, HubName) and name.selector is None else None


def _name(folder: Path) -> str:
    """The name of a folder; in the hub's cache, that of the repository."""
    above = folder.parent.parent
    if folder.parent.name == "snapshots" and above.name.startswith("models--"):
        return above.name.removeprefix("models--").replace("--", "/", 1)
    return folder.name


def _cached(where: Places, name: HubName, suffices: Callable[[Path], bool]) -> Path | None:
    for root in where.hugging_face:
        folder = root / f"models--{name.repository.replace('/', '--')}"
        try:
            revision = (folder / "refs" / name.revision).read_text("utf-8").strip()
        except (OSError, ValueError):
            revision = name.revision
        snapshot = folder / "snapshots" / revision
        if revision and PurePosixPath(revision).name == revision and suffices(snapshot):
            return snapshot
    return None


def _stored(where: Places, name: HubName) -> Path | None:
    folder = hub_folder(where.own, name)
    return folder if (folder / _COMPLETE).is_file() and _is_complete(folder) else None


def _is_complete(folder: Path) -> bool:
    if not (folder / "config.json").is_file():
        return False
    return any(entry.suffix in (".safetensors", ".bin") for entry in folder.iterdir())


def _is_described(folder: Path) -> bool:
    return all((folder / name).is_file() for name in ("config.json", "tokenizer_config.json"))


def wanted_files(files: Iterable[RemoteFile], *, tensors: bool = True) -> list[RemoteFile]:
    """The files of a repository that make up a checkpoint: the tensors in one form, and what describes the model."""
    found = [file for file in files if "/" not in file.path or file.path.startswith(_FOLDERS)]
    small = [
        file
        for file in found
        if file.path == "README.md" or (file.path.endswith(_SMALL) and file.size <= _LARGEST_SMALL)
    ]
    if not tensors:
        return small
    for kind in (("model", ".safetensors"), ("pytorch_model", ".bin"), ("", ".safetensors")):
        large = [file for file in found if file.path.startswith(kind[0]) and file.path.endswith(kind[1])]
        if large:
            return small + large
    return []


def _downloaded(where: Places, name: HubName, on_download: Progress | None, *, tensors: bool = True) -> Path:
    if offline():
        raise StoreError(
            f"{name.repository} is not on this machine, and the settings forbid to download it", missing=True
        )
    repository = list_files(name)
    files = wanted_files(repository.files, tensors=tensors)
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
    (folder / (_COMPLETE if tensors else _DESCRIBED)).touch()
    return folder
