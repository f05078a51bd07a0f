"""The names that a user may give for a model: a path, a Hugging Face Hub repository, a name in Ollama's registry."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from llamacpu.errors import StoreError

__all__ = ["REGISTRY", "HubName", "RegistryName", "local_path", "parse", "parse_name"]

REGISTRY = "registry.ollama.ai"
"""The host of Ollama's registry, after which folders of manifests are named."""

_PART = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(?::\d{1,5})?")
_HUB_HOSTS = ("hf.co", "huggingface.co", "www.huggingface.co", "hf-mirror.com")
_OLLAMA_HOSTS = ("ollama.com", "www.ollama.com", "ollama.ai")
FORMS = "a .gguf file, a name such as llama3.2 or llama3.1:8b, or hf:owner/repository[:QUANT or file]"


@dataclass(frozen=True)
class HubName:
    """A repository on the hub. selector: a quantization such as Q4_K_M, or a file; None for the best that fits."""

    repository: str
    selector: str | None = None
    revision: str = "main"

    def __str__(self) -> str:
        return f"hf:{self.repository}" + (f":{self.selector}" if self.selector else "")


@dataclass(frozen=True)
class RegistryName:
    """A model in a registry that speaks Ollama's protocol."""

    model: str
    tag: str = "latest"
    namespace: str = "library"
    host: str = REGISTRY

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """The path components of its manifest: folders, then the file."""
        return self.host.replace(":", "_") if os.name == "nt" else self.host, self.namespace, self.model, self.tag

    def __str__(self) -> str:
        place = "" if self.host == REGISTRY else f"{self.host}/"
        if place or self.namespace != "library":
            place += f"{self.namespace}/"
        return f"{place}{self.model}:{self.tag}"


def parse(name: str) -> Path | HubName | RegistryName:
    """Return what a name refers to; an existing file takes precedence. Raises StoreError for an invalid name."""
    if not name.strip() or "\0" in name:
        raise StoreError(f"{name!r} names no model; expected {FORMS}")
    path = local_path(name)
    return parse_name(name) if path is None else path


def parse_name(name: str) -> HubName | RegistryName:
    """Return what a name refers to, without looking for files. Raises StoreError for an invalid name."""
    given = name.strip()
    lower = given.lower()
    if lower.startswith(("http://", "https://")):
        return _of_address(given)
    if lower.startswith("hf:"):
        return _hub(given[3:], given)
    for host in _HUB_HOSTS:
        if lower.startswith(host + "/"):
            return _of_address("https://" + given)
    for prefix in ("ollama:", "ollama.com/"):
        if lower.startswith(prefix):
            given = given[len(prefix) :].removeprefix("library/")
    _owner, slash, repository = given.partition("/")
    if slash and repository.lower().partition(":")[0].endswith("-gguf") and "/" not in repository.partition(":")[0]:
        return _hub(given, name)
    return _registry(given, name)


def local_path(name: str) -> Path | None:
    """Return the path that a name stands for: an existing file, or what can only be a path; None otherwise."""
    path = Path(name)
    try:
        if path.is_file():
            return path
        if name.startswith("~"):
            return path.expanduser()
    except (OSError, ValueError, RuntimeError):
        return path
    lower = name.lower()
    if lower.startswith(("hf:", "http://", "https://", "ollama:", *(host + "/" for host in _HUB_HOSTS))):
        return None
    looks = name.startswith((".", "/", os.sep)) or "\\" in name or lower.endswith((".gguf", ".bin", ".safetensors"))
    return path if looks or re.match(r"[A-Za-z]:[\\/]", name) else None


def _of_address(address: str) -> HubName | RegistryName:
    split = urlsplit(address)
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT", ""))
    host = (split.hostname or "").lower()
    parts = [unquote(part) for part in split.path.split("/") if part]
    if host in _OLLAMA_HOSTS and parts:
        return _registry("/".join(parts[:2]).removeprefix("library/"), address)
    if host not in _HUB_HOSTS and (not endpoint.hostname or split.netloc.lower() != endpoint.netloc.lower()):
        raise StoreError(f"{address} is no page of a model that llamacpu knows; expected {FORMS}")
    if len(parts) < 2:
        raise StoreError(f"{address} names no repository; expected the address of a model's page")
    if ":" in parts[1] or len(parts) == 2:
        shown = parse_qs(split.query).get("show_file_info")
        return _hub("/".join(parts[:2]) + (f":{shown[0]}" if shown and ":" not in parts[1] else ""), address)
    if parts[2] in ("blob", "resolve", "raw", "tree") and len(parts) > 3:
        file = "/".join(parts[4:])
        return _hub("/".join(parts[:2]) + (f":{file}" if file else ""), address, parts[3])
    return _hub("/".join(parts[:2]), address)


def _hub(rest: str, name: str, revision: str = "main") -> HubName:
    repository, _, selector = rest.partition(":")
    parts = repository.split("/")
    if len(parts) > 2 and not selector:
        # hf:owner/repository/file.gguf
        parts, selector = parts[:2], "/".join(parts[2:])
    if len(parts) != 2 or not all(_PART.fullmatch(part) for part in parts):
        raise StoreError(f"{name!r} names no repository; expected hf:owner/repository[:QUANT or file]")
    if selector and not safe_path(selector):
        raise StoreError(
            f"{name!r}: the file {selector!r} is no path inside a repository; give it as the page shows it"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", revision):
        raise StoreError(f"{name!r}: the revision {revision!r} is not one; expected a branch, a tag or a commit")
    return HubName("/".join(parts), selector or None, revision)


def _registry(rest: str, name: str) -> RegistryName:
    first, _colon, tag = rest.rpartition(":") if ":" in rest.rpartition("/")[2] else (rest, "", "latest")
    parts = first.split("/")
    host, namespace = REGISTRY, "library"
    if len(parts) == 3:
        host = parts[0]
    if len(parts) >= 2:
        namespace = parts[-2]
    good = len(parts) <= 3 and all(map(_PART.fullmatch, parts[-2:])) and _HOST.fullmatch(host) and _TAG.fullmatch(tag)
    if not good or ".." in host:
        raise StoreError(f"{name!r} is neither a file that is there nor the name of a model; expected {FORMS}")
    return RegistryName(parts[-1], tag, namespace, host)


def safe_path(name: str) -> bool:
    """Return whether a file with this name stays inside the folder that it is put into, on every system."""
    parts = name.split("/")
    if not name or "\\" in name or ":" in name or "\0" in name or any(ord(c) < 32 for c in name) or len(name) > 1000:
        return False
    return all(part not in ("", ".", "..") and not part.endswith((" ", ".")) and len(part) < 250 for part in parts)
