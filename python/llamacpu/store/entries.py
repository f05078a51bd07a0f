"""The models on this machine, each in its own place."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from llamacpu.errors import StoreError
from llamacpu.store.manifests import MODEL, PROJECTOR, Manifest, Preset, blob_name, preset_of, read_manifest
from llamacpu.store.names import RegistryName
from llamacpu.store.places import Places

__all__ = [
    "Entry",
    "entries",
    "entry_of_file",
    "entry_of_manifest",
    "is_projector",
    "manifest_path",
    "quantization",
    "stem_of",
]

_SHARD = re.compile(r"-(\d{5})-of-(\d{5})$")
_PROJECTOR = re.compile(r"(^|[-_.])mmproj", re.IGNORECASE)
_QUANT = re.compile(
    r"(?:^|[-_.])((?:UD-)?(?:I?Q\d(?:_[0-9A-Z]+)*|TQ\d_0|MXFP4(?:_MOE)?|NVFP4|BF16|F16|F32|FP16|FP32))$", re.IGNORECASE
)
_DEPTH = 6


@dataclass(frozen=True)
class Entry:
    """A model on this machine.

    name        a name that it can be opened by
    origin      "llamacpu", "ollama", "hugging face", "lm studio", "llama.cpp" or "folder"
    files       its files in order: more than one if the model is split
    projector   the image encoder that belongs to it (mmproj); None if there is none
    repository  owner/repository on the hub, if known
    manifest    the manifest of a model in the layout of Ollama's store, with its file and the folder of its blobs
    """

    name: str
    origin: str
    files: tuple[Path, ...]
    projector: Path | None = None
    repository: str | None = None
    manifest: Manifest | None = None
    manifest_file: Path | None = None
    blobs: Path | None = None

    @property
    def path(self) -> Path:
        """The file to open."""
        return self.files[0]

    @property
    def nbytes(self) -> int:
        """Size of its files in bytes, without the projector; missing files count as 0."""
        return sum(_size(file) for file in self.files)

    @property
    def modified(self) -> float:
        """When it was last modified, in seconds since 1970; 0 if unknown."""
        try:
            return (self.manifest_file or self.path).stat().st_mtime
        except OSError:
            return 0.0

    @cached_property
    def preset(self) -> Preset:
        """The settings, system prompt, template and license that come with it. Raises StoreError if unreadable."""
        if self.manifest is None or self.blobs is None:
            return Preset(licenses=tuple(_licences(self.path.parent)) if self.repository else ())
        return preset_of(self.manifest, self.blobs)


def _licences(folder: Path) -> Iterator[str]:
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md", "USE_POLICY.md"):
        try:
            if (folder / name).is_file():
                yield (folder / name).read_text(encoding="utf-8", errors="replace")[: 1 << 20]
        except OSError:
            continue


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def is_projector(name: str) -> bool:
    """Return whether a file's name is that of an image encoder."""
    return _PROJECTOR.search(name) is not None


def quantization(stem: str) -> str | None:
    """Return the quantization that a file's name ends with, such as "Q4_K_M"; None if there is none."""
    match = _QUANT.search(_SHARD.sub("", stem))
    return match[1].upper().replace("FP16", "F16").replace("FP32", "F32") if match else None


def stem_of(path: Path) -> str:
    """Return the name of a model's file without the extension and the part number."""
    return _SHARD.sub("", path.name[:-5] if path.name.lower().endswith(".gguf") else path.name)


def manifest_path(root: Path, name: RegistryName) -> Path:
    """Return where a store keeps the manifest of a name."""
    return root.joinpath("manifests", *name.parts)


def entries(found: Places) -> Iterator[Entry]:
    """Iterate over all models in these folders, skipping what cannot be read."""
    yield from _manifests(found.own, "llamacpu", own=True)
    yield from _files(found.own, "llamacpu", hub=found.own / "hub")
    for root in found.ollama:
        if root != found.own:
            yield from _manifests(root, "ollama")
    for root in found.hugging_face:
        yield from _hub_cache(root)
    for root in found.lm_studio:
        yield from _files(root, "lm studio", hub=root)
    for root in found.llama_cpp:
        yield from _hub_cache(root, "llama.cpp")
        yield from _files(root, "llama.cpp")
    for root in found.folders:
        yield from _files(root, "folder")


def entry_of_file(path: Path, origin: str = "folder", name: str | None = None, repository: str | None = None) -> Entry:
    """Return the model of a .gguf file, with its other parts and the projector next to it."""
    match = _SHARD.search(path.name[:-5])
    parts = [path]
    if match:
        stem = path.name[: match.start()]
        parts = [
            path.with_name(f"{stem}-{part:05}-of-{match[2]}.gguf") for part in range(1, min(int(match[2]), 1024) + 1)
        ]
        parts = parts or [path]
    projectors = sorted(file for file in _listed(path.parent) if _is_gguf(file) and _PROJECTOR.search(file.name))
    return Entry(name or stem_of(path), origin, tuple(parts), projectors[0] if projectors else None, repository)


def entry_of_manifest(file: Path, root: Path, name: RegistryName, origin: str) -> Entry:
    """Return a model of a store in Ollama's layout. Raises StoreError for a manifest damaged or without weights."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise StoreError(f"{file}: {error.strerror}") from None
    manifest = read_manifest(data, str(file), own=origin == "llamacpu")
    blobs = root / "blobs"
    models = [Path(one.path) if one.path else blobs / blob_name(one.digits) for one in manifest.only(MODEL)]
    if not models:
        raise StoreError(f"{name}: the manifest names no weights in GGUF files; llamacpu cannot run this model")
    encoders = [Path(one.path) if one.path else blobs / blob_name(one.digits) for one in manifest.only(PROJECTOR)]
    shown = str(name).removesuffix(":latest")
    if manifest.only(MODEL)[0].path and len(models) == 1:
        split = entry_of_file(models[0])
        models = list(split.files)
    return Entry(shown, origin, tuple(models), encoders[0] if encoders else None, None, manifest, file, blobs)


def _manifests(root: Path, origin: str, own: bool = False) -> Iterator[Entry]:
    base = root / "manifests"
    for host in _listed(base):
        for namespace in _listed(host):
            for model in _listed(namespace):
                for tag in _listed(model):
                    try:
                        name = RegistryName(model.name, tag.name, namespace.name, host.name)
                        if tag.is_file():
                            yield entry_of_manifest(tag, root, name, origin)
                    except StoreError:
                        continue


def _hub_cache(root: Path, origin: str = "hugging face") -> Iterator[Entry]:
    """Iterate over models--owner--name/snapshots/<commit>/files; refs/main names the newest commit."""
    for folder in _listed(root):
        kind, _, rest = folder.name.partition("--")
        owner, sign, name = rest.partition("--")
        if kind != "models" or not sign:
            continue
        snapshots = _listed(folder / "snapshots")
        try:
            current = (folder / "refs" / "main").read_text(encoding="ascii", errors="replace").strip()
        except OSError:
            current = ""
        snapshots.sort(key=lambda one: one.name != current)
        seen: set[str] = set()
        for snapshot in snapshots:
            for entry in _models(_walk(snapshot), origin, lambda _file: f"{owner}/{name}"):  # noqa: B023 (used at once)
                if entry.name not in seen:
                    seen.add(entry.name)
                    yield entry


def _files(root: Path, origin: str, hub: Path | None = None) -> Iterator[Entry]:
    """Iterate over the .gguf files below a folder; below `hub` the first two folders are owner and repository."""

    def repository(file: Path) -> str | None:
        parts = file.relative_to(hub).parts if hub is not None and hub in file.parents else ()
        return "/".join(parts[:2]) if len(parts) > 2 else None

    yield from _models(_walk(root, skip=("blobs", "manifests")), origin, repository)


def _models(files: Iterable[Path], origin: str, repository: object) -> Iterator[Entry]:
    for file in files:
        match = _SHARD.search(file.name[:-5])
        if _PROJECTOR.search(file.name) or (match and int(match[1]) != 1):
            continue
        owner = repository(file)  # type: ignore[operator]
        stem = stem_of(file)
        name = f"hf:{owner}:{quantization(stem) or file.name}" if owner else stem
        yield entry_of_file(file, origin, name, owner)


def _walk(root: Path, depth: int = 0, skip: tuple[str, ...] = ()) -> Iterator[Path]:
    for path in _listed(root):
        if _is_gguf(path):
            yield path
        elif depth < _DEPTH and path.name not in skip and not path.name.startswith(".") and _is_folder(path):
            yield from _walk(path, depth + 1)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir() and not path.is_symlink()
    except OSError:
        return False


def _is_gguf(path: Path) -> bool:
    try:
        return path.name.lower().endswith(".gguf") and not path.name.startswith(".") and path.is_file()
    except OSError:
        return False


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(Path(entry.path) for entry in os.scandir(folder))
    except OSError:
        return []
