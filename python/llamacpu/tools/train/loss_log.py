"""The loss curve as a file that grows with the training: CSV, or JSON lines if its name ends in .jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import BinaryIO

from llamacpu.files import replacing
from llamacpu.tools.train.checkpoints import Point

__all__ = ["LossLog"]

_NAMES = [field.name for field in fields(Point)]
_HEADER = ",".join(_NAMES)


class LossLog:
    """Writes the points of a run; those of the steps before a resumed run's checkpoint are kept, later ones go."""

    def __init__(self, path: str | os.PathLike[str], points: Sequence[Point]) -> None:
        """Write the points so far. Raises what `files.replacing` raises, so that no file of another kind is lost."""
        self._path = Path(path)
        self._as_json = self._path.suffix.lower() in (".jsonl", ".ndjson")
        self._written = max(len(points) - 1, 0)
        with replacing(path, "the log of a training", _is_log, ordinary=True) as file:
            lines = [] if self._as_json else [_HEADER]
            file.write("".join(f"{line}\n" for line in [*lines, *map(self._line, points[: self._written])]).encode())
        self._file = self._path.open("a", encoding="utf-8")

    def sync(self, points: Sequence[Point]) -> None:
        """Append the new points except for the last one, which an evaluation may still complete."""
        for point in points[self._written : -1]:
            self._file.write(self._line(point) + "\n")
            self._written += 1
        self._file.flush()

    def close(self, points: Sequence[Point]) -> None:
        """Append what is left, and close the file."""
        self.sync(points)
        if points:
            self._file.write(self._line(points[-1]) + "\n")
        self._file.close()

    def _line(self, point: Point) -> str:
        values = asdict(point)
        if self._as_json:
            return json.dumps(values)
        return ",".join("" if value is None else repr(value) for value in values.values())


def _is_log(file: BinaryIO) -> bool:
    start = file.read(len(_HEADER) + 12)
    return start.startswith((_HEADER.encode(), b'{"step": '))
