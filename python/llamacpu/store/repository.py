"""The protocol of the Hugging Face Hub: the files of a repository, and which of them form a model."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from llamacpu.errors import StoreError
from llamacpu.store.entries import is_projector, quantization, stem_of
from llamacpu.store.local import selected
from llamacpu.store.names import HubName, safe_path
from llamacpu.store.transfer import HttpError, get, parsed

__all__ = ["Candidate", "RemoteFile", "Repository", "choose", "endpoint", "hub_headers", "list_files"]

_PAGES = 50
LICENSES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "USE_POLICY.md")
# Unquantized types, which are ranked last.
_WHOLE = ("F32", "BF16", "F16")


@dataclass(frozen=True)
class RemoteFile:
    """A file in a repository. sha256 is None for files stored in Git itself."""

    path: str
    size: int
    sha256: str | None


@dataclass(frozen=True)
class Candidate:
    """A model in a repository: one file, or all files of a split model."""

    name: str
    quantization: str | None
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class Repository:
    """The contents of a repository."""

    name: HubName
    files: tuple[RemoteFile, ...]

    def url(self, path: str) -> str:
        """Return the URL of a file."""
        return f"{endpoint()}/{self.name.repository}/resolve/{quote(self.name.revision, safe='')}/{quote(path)}"

    @property
    def candidates(self) -> list[Candidate]:
        """The models, the largest first."""
        groups: dict[str, list[RemoteFile]] = {}
        for file in self.files:
            if file.path.lower().endswith(".gguf") and not is_projector(PurePosixPath(file.path).name):
                folder, _, name = file.path.rpartition("/")
                groups.setdefault(f"{folder}/{stem_of(Path(name))}", []).append(file)
        found = [
            Candidate(
                key.rpartition("/")[2], quantization(key.rpartition("/")[2]), tuple(sorted(group, key=lambda f: f.path))
            )
            for key, group in groups.items()
        ]
        return sorted(found, key=lambda one: -one.size)

    @property
    def projector(self) -> RemoteFile | None:
        """The smallest image encoder; None if there is none."""
        found = [
            one
            for one in self.files
            if one.path.lower().endswith(".gguf") and is_projector(PurePosixPath(one.path).name)
        ]
        return min(found, key=lambda one: one.size, default=None)


def endpoint() -> str:
    """Return HF_ENDPOINT, or the hub's own URL. Raises StoreError if HF_ENDPOINT is not a URL."""
    given = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    if urlsplit(given).scheme not in ("http", "https") or not urlsplit(given).hostname:
        raise StoreError(f"HF_ENDPOINT is {given!r}; expected an address such as https://huggingface.co")
    return given


def hub_headers(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the header with the user's token for the hub: HF_TOKEN, or the token stored by `hf auth login`."""
    env = os.environ if environment is None else environment
    key = (env.get("HF_TOKEN") or env.get("HUGGING_FACE_HUB_TOKEN") or "").strip()
    if not key:
        home = env.get("HF_HOME") or str(
            Path(env.get("XDG_CACHE_HOME") or Path(env.get("HOME", "~")) / ".cache") / "huggingface"
        )
        try:
            key = Path(env.get("HF_TOKEN_PATH") or f"{home}/token").read_text(encoding="utf-8").strip()
        except (OSError, ValueError):
            key = ""
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise StoreError(
            "HF_TOKEN holds characters that no key of the hub has; copy it again from the settings of the hub"
        )
    return {"Authorization": f"Bearer {key}"} if key else {}


def list_files(name: HubName) -> Repository:
    """Ask the hub for the files of a repository. Raises StoreError, which says what to do, if it refuses."""
    base = endpoint()
    url: str | None = f"{base}/api/models/{name.repository}/tree/{quote(name.revision, safe='')}?recursive=true"
    found: list[RemoteFile] = []
    for _page in range(_PAGES):
        assert url is not None
        try:
            data, headers = get(url, hub_headers())
        except HttpError as error:
            raise refused(error, name) from None
        rows = parsed(data, url)
        if not isinstance(rows, list):
            raise StoreError(
                f"{urlsplit(base).hostname} does not list the files of {name.repository}; is HF_ENDPOINT right?"
            )
        found += [file for row in rows if (file := _file(row)) is not None]
        more = re.search(r'<([^>]+)>;\s*rel="next"', headers.get("Link") or "")
        url = urljoin(url, more[1]) if more else None
        if url is None or urlsplit(url).netloc != urlsplit(base).netloc:
            break
    return Repository(name, tuple(found))


def refused(error: HttpError, name: HubName) -> StoreError:
    """Return an error that says what to do when the hub refuses."""
    fields = {key.lower(): value for key, value in error.headers.items()}
    code, page = fields.get("x-error-code", ""), f"{endpoint()}/{name.repository}"
    has_key = bool(hub_headers())
    if code == "GatedRepo" or (error.status == 403 and "gated" in error.detail.lower()):
        key = "" if has_key else ", then make a key at https://huggingface.co/settings/tokens and set HF_TOKEN to it"
        return StoreError(f"{name.repository} is gated: its makers want you to accept their licence at {page}{key}")
    if error.status == 401:
        if has_key:
            return StoreError(
                f"the hub does not know {name.repository}, or the key in HF_TOKEN may not read it; see {page}"
            )
        return StoreError(
            f"{name.repository} does not exist, or it is gated or private; see {page}, and set HF_TOKEN to "
            "a key of yours from https://huggingface.co/settings/tokens"
        )
    if error.status == 403:
        return StoreError(f"the hub does not let you read {name.repository}; open {page} to see what it asks for")
    if error.status == 404:
        what = f"revision {name.revision!r} of {name.repository}" if code == "RevisionNotFound" else name.repository
        return StoreError(
            f"the hub has no {what}; expected hf:owner/repository as the page {page} is called", missing=True
        )
    return error


def _file(row: Any) -> RemoteFile | None:
    try:
        path, size, lfs = row["path"], row["size"], row.get("lfs") or {}
        digest = lfs.get("oid")
        size = lfs.get("size", size)
        good = row.get("type", "file") == "file" and isinstance(path, str) and safe_path(path)
        if not good or not isinstance(size, int) or not 0 <= size < 1 << 50:
            return None
        if digest is not None and not (isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{64}", digest)):
            return None
        return RemoteFile(path, size, digest)
    except (KeyError, TypeError, AttributeError):
        return None


def choose(repository: Repository) -> Sequence[Candidate]:
    """Return the models that the name refers to, the best first: those requested, or all, unquantized ones last."""
    every, wanted = repository.candidates, repository.name.selector
    listed = ", ".join(dict.fromkeys(one.quantization or one.name for one in every))
    if not every:
        raise StoreError(
            f"{repository.name.repository} has no GGUF files; look for a repository whose name ends in -GGUF"
        )
    if wanted is None:
        # More than 8 bits per weight are slower and hardly better.
        return sorted(every, key=lambda one: one.quantization in _WHOLE)
    found = [one for one in every if any(selected(file.path, wanted) for file in one.files)]
    if len(found) > 1:
        found = [one for one in found if any(file.path == wanted for file in one.files)] or found[:1]
    if not found:
        raise StoreError(f"{repository.name.repository} has no {wanted}; it has {listed}")
    return found
