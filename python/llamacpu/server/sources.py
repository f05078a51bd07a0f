"""What a server is given to serve: files, folders, open models, and names from the model store."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacpu.gguf.file import GGUFFile

__all__ = ["Source", "Stored", "bytes_of", "sources_of"]

Source = Any
"""An open model, or the path of a file."""

_PART = re.compile(r"-(\d{5})-of-\d{5}$")


@dataclass(frozen=True)
class Stored:
    """A model given by its name in the store, from which its settings come. path: its file."""

    name: str
    path: Path


def sources_of(models: Source | Sequence[Source] | Mapping[str, Source]) -> dict[str, Source]:
    """Return names and sources for what `app` and `serve` accept: files, folders, open models, or a mapping.

    A file is named by its file name without the suffix. Raises ValueError for anything that is not a model and for
    duplicate names, FileNotFoundError for missing files.
    """
    if isinstance(models, Mapping):
        return {str(name): _resolved(source)[0][1] for name, source in models.items()}
    listed = models if isinstance(models, (list, tuple)) else [models]
    found: dict[str, Source] = {}
    for given in listed:
        for name, source in _resolved(given):
            if name in found:
                raise ValueError(f"two models are called {name}: {found[name]} and {source}; rename one of the files")
            found[name] = source
    if not found:
        raise ValueError("no model to serve; give a .gguf file, a folder of them or an open model")
    return found


def _resolved(given: Source) -> list[tuple[str, Source]]:
    if not isinstance(given, (str, os.PathLike)):
        if not hasattr(given, "session"):
            raise ValueError(f"{type(given).__name__} is no model; expected a path or an open model")
        return [(_PART.sub("", Path(given.path).stem), given)]
    if not os.fspath(given):
        raise FileNotFoundError(2, "the path of the model is empty; give a .gguf file or a folder of them")
    path = Path(given)
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix == ".gguf" and file.is_file())
        first = [file for file in files if (_PART.search(file.stem) or ["", "00001"])[1] == "00001"]
        if not first:
            raise FileNotFoundError(2, "a folder without .gguf files; name a file or another folder", str(path))
        return [(_PART.sub("", file.stem), file.resolve()) for file in first]
    if not path.is_file():
        named = _named(given)
        if named is None:
            raise FileNotFoundError(2, "no such file; check the path", str(path))
        with GGUFFile(named.path):
            pass
        return [(named.name, named)]
    # A file that is not GGUF is reported now; a folder, in contrast, may contain other files than models.
    with GGUFFile(path):
        pass
    return [(_PART.sub("", path.stem), path.resolve())]


def _named(given: str | os.PathLike[str]) -> Stored | None:
    """The model that a name stands for; None if it is a path."""
    from llamacpu.store.names import parse
    from llamacpu.store.resolve import resolve

    if not isinstance(given, str) or isinstance(parse(given), Path):
        return None
    entry = resolve(given)
    return Stored(entry.name, entry.path.resolve())


def bytes_of(source: Source) -> int:
    """The size of a model: its weights in memory, or its file with the other parts of a split one."""
    if not isinstance(source, Path):
        return int(getattr(source, "weight_bytes", 0))
    first = _PART.search(source.stem)
    if first is None:
        return source.stat().st_size
    stem = source.stem[: first.start()]
    return sum(file.stat().st_size for file in source.parent.glob("*.gguf") if _PART.sub("", file.stem) == stem)
