"""Downloads for `from_pretrained`: files of the Hugging Face Hub, into the shared cache or our own store."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llamacpu.store.download import download as download_file
from llamacpu.store.names import HubName, parse
from llamacpu.store.own import hub_folder
from llamacpu.store.places import places
from llamacpu.store.repository import hub_headers, list_files, refused
from llamacpu.store.transfer import HttpError

__all__ = ["download"]


def download(
    repo_id: str,
    filename: str,
    additional_files: Sequence[str] = (),
    local_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> str:
    """Download the file of a repository that matches `filename`, a name or a pattern, and return its path.

    `additional_files` (names or patterns) are downloaded next to it: the other parts of a split model. Files go to
    `local_dir` if it is given; otherwise into the hub's cache (`cache_dir`) if huggingface_hub is installed, else into
    our own store. Raises ValueError if a pattern matches no file or several, StoreError if the hub refuses.
    """
    wanted = (filename, *additional_files)
    try:
        import huggingface_hub
    except ImportError:
        return str(_downloaded(repo_id, wanted, local_dir or cache_dir))
    hub: Any = huggingface_hub
    names = hub.list_repo_files(repo_id)
    paths = [
        hub.hf_hub_download(repo_id, _only(names, name, repo_id), local_dir=local_dir, cache_dir=cache_dir)
        for name in wanted
    ]
    return str(paths[0])


def _downloaded(repo_id: str, wanted: Sequence[str], folder: str | os.PathLike[str] | None) -> Path:
    name = parse(f"hf:{repo_id}")
    assert isinstance(name, HubName)
    repository = list_files(name)
    files = {file.path: file for file in repository.files}
    chosen = [files[_only(list(files), one, repo_id)] for one in wanted]
    target = hub_folder(places().own, name) if folder is None else Path(folder)
    for file in chosen:
        try:
            download_file(repository.url(file.path), target / file.path, file.size, file.sha256, hub_headers())
        except HttpError as error:
            raise refused(error, name) from None
    return target / chosen[0].path


def _only(names: Sequence[str], wanted: str, repo_id: str) -> str:
    found = [name for name in names if fnmatch.fnmatch(name, wanted)]
    if len(found) != 1:
        shown = ", ".join(found or [name for name in names if name.endswith(".gguf")] or names)
        kind = f"{len(found)} files" if found else "no file"
        raise ValueError(f"{repo_id} has {kind} for {wanted!r}; expected exactly one of: {shown}")
    return found[0]
