"""Which files of a folder hold the tensors."""

from __future__ import annotations

import re
from pathlib import Path

from llamacpu.checkpoints.json_files import read_object
from llamacpu.errors import CheckpointError

__all__ = ["parts_of", "shards_of"]

MAX_SHARDS = 4096
_NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(?P<kind>safetensors|bin)")
_PART = re.compile(r"consolidated\.(\d{2})\.pth")
# In this order: a file of safetensors is always preferred.
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SINGLE = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors", "adapter_model.bin")


def shards_of(place: Path) -> dict[Path, list[str] | None]:
    """Return the files of a checkpoint, in order, each with the names of the tensors to take from it (None: all).

    place: a folder, or one file. Raises CheckpointError if there are none, or some are missing.
    """
    try:
        if not place.exists():
            raise CheckpointError(f"{place}: there is no such file or folder; give the folder of a checkpoint")
        if not place.is_dir():
            return {place: None}
        names = sorted(entry.name for entry in place.iterdir())
    except (OSError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{place}: cannot be read: {error}") from error
    for kind in ("safetensors", "bin"):
        found = _of_kind(place, [name for name in names if kind in name], kind)
        if found:
            return found
    others = [name for name in names if name.endswith(".safetensors")] or [name for name in names if _PART.match(name)]
    if len(others) == 1 or others[:1] == ["consolidated.00.pth"]:
        return {place / others[0]: None}
    if others:
        raise CheckpointError(
            f"{place}: {len(others)} safetensors files, but no index (model.safetensors.index.json) says how they "
            "belong together; give the path of one file"
        )
    raise CheckpointError(
        f"{place}: no tensors here; expected model.safetensors, its index, pytorch_model.bin or consolidated.00.pth"
    )


def parts_of(file: Path) -> list[Path]:
    """Return all parts of a model in Meta's form (consolidated.00.pth ...), given one; [] for another kind of file.

    Raises CheckpointError if parts are missing.
    """
    if not _PART.fullmatch(file.name):
        return []
    found = sorted(entry for entry in file.parent.iterdir() if _PART.fullmatch(entry.name))
    expected = [file.parent / f"consolidated.{number:02}.pth" for number in range(len(found))]
    if found != expected:
        missing = next(path for path in expected if path not in found)
        raise CheckpointError(f"{file.parent}: {missing.name!r} is missing; copy all parts of the checkpoint")
    return found


def _of_kind(folder: Path, names: list[str], kind: str) -> dict[Path, list[str] | None]:
    for name in _INDEXES:
        if name in names:
            return _indexed(folder, folder / name)
    for name in _SINGLE:
        if name in names:
            return {folder / name: None}
    numbered = [match for name in names if (match := _NUMBERED.fullmatch(name)) and match["kind"] == kind]
    return _numbered(folder, numbered) if numbered else {}


def _indexed(folder: Path, index: Path) -> dict[Path, list[str] | None]:
    table = read_object(index).get("weight_map")
    if not isinstance(table, dict) or not table:
        raise CheckpointError(f"{index.name}: expected a table `weight_map` from tensors to files")
    shards: dict[Path, list[str] | None] = {}
    for name, file in table.items():
        # A file elsewhere would be read although nobody gave its name.
        if not isinstance(file, str) or not file or Path(file).name != file or "\\" in file or "\0" in file:
            raise CheckpointError(f"{index.name}: {file!r:.120} is not the name of a file in the same folder")
        names = shards.setdefault(folder / file, [])
        assert names is not None
        names.append(name)
    if len(shards) > MAX_SHARDS:
        raise CheckpointError(f"{index.name}: {len(shards)} files; expected at most {MAX_SHARDS}")
    missing = [path.name for path in shards if not path.exists()]
    if missing:
        raise CheckpointError(
            f"{folder}: {len(missing)} of {len(shards)} files of the checkpoint are missing, the first is "
            f"{missing[0]!r}; download the rest"
        )
    return dict(sorted(shards.items()))


def _numbered(folder: Path, matches: list[re.Match[str]]) -> dict[Path, list[str] | None]:
    first = matches[0]
    count = int(first["count"])
    if any((match["stem"], match["count"]) != (first["stem"], first["count"]) for match in matches):
        raise CheckpointError(f"{folder}: files of several checkpoints; give a folder that holds one")
    if count > MAX_SHARDS:
        raise CheckpointError(f"{folder}: {first.string} is one of {count} files; expected at most {MAX_SHARDS}")
    expected = [f"{first['stem']}-{number:05}-of-{count:05}.{first['kind']}" for number in range(1, count + 1)]
    missing = [name for name in expected if name not in {match.string for match in matches}]
    if missing:
        raise CheckpointError(f"{folder}: {missing[0]!r} is missing; download the rest of the checkpoint")
    return {folder / name: None for name in expected}
