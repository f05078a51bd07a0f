"""The folder of answers: one file per part, moved into place when complete, and a record of what they answer."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llamacpu.files import replacing
from llamacpu.ray.inputs import Format, Part
from llamacpu.store.file_lock import file_lock

__all__ = ["Folder"]

log: logging.Logger = logging.getLogger("llamacpu.ray")

# Its name has no data file extension, so that programs that read the folder skip it.
_MANIFEST = "_llamacpu_answers"
_LOCK = ".llamacpu_lock"


class Folder:
    """The folder that answers are written to: `part-00000.jsonl` (or .parquet) and so on, one per part of the input."""

    def __init__(self, path: str | os.PathLike[str], form: Format) -> None:
        self.path: Path = Path(path).resolve()
        self.form = form

    def file(self, part: Part) -> Path:
        """Return the path of the file with the answers to a part."""
        return self.path / f"part-{part.number:05d}.{self.form}"

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Create the folder, or continue in one that belongs to the same run.

        Raises ValueError for a folder with other files or with the answers of another run, naming what differs.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        file = self.path / _MANIFEST
        if file.exists():
            try:
                older = json.loads(file.read_bytes())
            except ValueError:
                raise ValueError(f"{file} is damaged; give another folder for the answers") from None
            differing = [name for name in manifest if not isinstance(older, dict) or older.get(name) != manifest[name]]
            if differing:
                raise ValueError(
                    f"{self.path} holds answers of another run, which differs in: {', '.join(differing)}; give another "
                    "folder, or the same model, inputs and settings to go on with that run"
                )
        else:
            others = [name.name for name in self.path.iterdir() if not name.name.startswith(".")]
            if others:
                raise ValueError(f"{self.path} is not empty (it has {others[0]}); give an empty or a new folder")
            with replacing(file, "the facts of a run", lambda _: True) as written:
                written.write(json.dumps(manifest, indent=1).encode())
        # Files that a killed run had begun to write.
        for begun in self.path.glob(".part-*.part"):
            begun.unlink(missing_ok=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and lock out other runs; the lock ends with the process that holds it.

        Raises ValueError if another run is writing here.
        """
        self.path.mkdir(parents=True, exist_ok=True)

        def taken() -> None:
            raise ValueError(
                f"another run writes its answers into {self.path} now; wait until it ends, or give another folder"
            )

        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(file_lock(self.path / _LOCK, taken))
            except OSError as error:
                # Some network file systems have no locks. Parts are moved into place atomically in any case.
                log.warning("%s cannot be locked (%s): do not start a second run there", self.path, error.strerror)
            yield

    def missing(self, parts: Sequence[Part]) -> list[Part]:
        """Return the parts that have no answers yet. A file is in place only when it is complete."""
        there = {file.name for file in self.path.iterdir()}
        return [part for part in parts if self.file(part).name not in there]

    def write(self, part: Part, rows: list[dict[str, Any]], table: Any, answers: list[dict[str, Any]]) -> None:
        """Write the rows of a part with their answers, all of them or none. Raises OSError."""
        with replacing(self.file(part), "a part of the answers", lambda _: True) as file:
            if table is None:
                for row, answer in zip(rows, answers, strict=True):
                    kept = {name: value for name, value in row.items() if name is not None}
                    line = json.dumps({**kept, **answer}, ensure_ascii=False)
                    file.write(line.encode("utf-8", "backslashreplace") + b"\n")
            else:
                import pyarrow.parquet

                pyarrow.parquet.write_table(with_columns(table, answers), file)


def with_columns(table: Any, answers: Sequence[Mapping[str, Any]]) -> Any:
    """Append the columns of the answers to an Arrow table, with types that do not depend on the answers."""
    import pyarrow

    for name in answers[0] if answers else ():
        kind = pyarrow.int64() if name.endswith("_tokens") else pyarrow.string()
        table = table.append_column(name, pyarrow.array([_text(answer[name]) for answer in answers], kind))
    return table


def _text(value: Any) -> Any:
    """Replace lone surrogates, which Arrow does not accept."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
