"""The rows of JSONL and Parquet files, and where the files can be split into parts."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Format", "Part", "files_in", "format_of", "parts_of", "read_part"]

Format = Literal["jsonl", "parquet"]

_FORMATS: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
# A single line of a file that is not JSONL at all could fill the memory.
_LINE_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """Consecutive rows of a file.

    number   index of the part in the whole input
    first    index of its first row in the file
    count    number of rows
    start, end  byte range in a JSONL file; 0 for Parquet
    """

    number: int
    path: str
    first: int
    count: int
    start: int = 0
    end: int = 0


def format_of(path: Path) -> Format:
    """Return the format of a file, by its extension. Raises ValueError for any other."""
    found = _FORMATS.get(path.suffix.lower())
    if found is None:
        raise ValueError(f"{path} ends in {path.suffix or 'nothing'}; expected a .jsonl or .parquet file")
    return found


def parts_of(paths: Iterable[Path], rows_per_part: int, taken: Iterable[str]) -> tuple[list[Part], str]:
    """Return the parts of some files, in order, and a digest of their contents.

    taken: names that no column of the input may have.

    Raises ValueError for a file in an invalid format and a column with a taken name, and OSError.
    """
    names = set(taken)
    digest = hashlib.sha256()
    found: list[Part] = []
    for path in paths:
        cut = _cut_lines if format_of(path) == "jsonl" else _cut_rows
        for first, count, start, end in cut(path, rows_per_part, names, digest):
            found.append(Part(len(found), str(path), first, count, start, end))
    return found, digest.hexdigest()


def read_part(part: Part) -> tuple[list[dict[str, Any]], Any]:
    """Return the rows of a part and, for Parquet, the table that holds them (else None).

    A line that is not a JSON object becomes a row with only the error message, under the key None, which no column can
    have.
    """
    if format_of(Path(part.path)) == "parquet":
        table = _table(part)
        return table.to_pylist(), table
    with Path(part.path).open("rb") as file:
        file.seek(part.start)
        data = file.read(part.end - part.start)
    return [_row(line) for line in data.split(b"\n") if line.strip()], None


def _cut_lines(path: Path, size: int, taken: set[str], digest: Any) -> Iterator[tuple[int, int, int, int]]:
    """Yield (first row, number of rows, start, end) of each part of a JSONL file; empty lines are not rows."""
    first = count = start = position = 0
    with path.open("rb") as file:
        while line := file.readline(_LINE_BYTES):
            if len(line) == _LINE_BYTES and not line.endswith(b"\n"):
                raise ValueError(f"{path} has a line of more than {_LINE_BYTES} bytes; expected one JSON object a line")
            digest.update(line)
            position += len(line)
            if not line.strip():
                continue
            count += 1
            _check_names(_row(line), taken, f"{path}, row {first + count}")
            if count == size:
                yield first, count, start, position
                first, count, start = first + count, 0, position
    if count:
        yield first, count, start, position


def _cut_rows(path: Path, size: int, taken: set[str], digest: Any) -> Iterator[tuple[int, int, int, int]]:
    import pyarrow
    import pyarrow.parquet

    with path.open("rb") as file:
        _digest_file(file, digest)
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            rows, columns = table.metadata.num_rows, table.schema_arrow.names
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} is no Parquet file that can be read: {error}") from None
    _check_names(dict.fromkeys(columns), taken, str(path))
    for first in range(0, rows, size):
        yield first, min(size, rows - first), 0, 0


def _digest_file(file: io.BufferedReader, digest: Any) -> None:
    """Add a whole file to a digest."""
    while piece := file.read(1 << 20):
        digest.update(piece)


def _table(part: Part) -> Any:
    import pyarrow.parquet

    pieces, at = [], 0
    with pyarrow.parquet.ParquetFile(part.path) as file:
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            low, high = max(part.first, at), min(part.first + part.count, at + rows)
            if low < high:
                pieces.append(file.read_row_group(group).slice(low - at, high - low))
            at += rows
        return pyarrow.concat_tables(pieces)


def _row(line: bytes) -> dict[Any, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        return {None: f"the line is no JSON: {error or type(error).__name__}: {line[:80].decode(errors='replace')!r}"}
    if not isinstance(found, dict):
        return {None: f"the line holds {type(found).__name__}; expected a JSON object with a prompt or messages"}
    return found


def _check_names(row: dict[Any, Any], taken: set[str], where: str) -> None:
    both = taken.intersection(row)
    if both:
        raise ValueError(
            f"{where} has a column {min(both)}, which is the name of a column of the answer; give a column_prefix"
        )


def files_in(inputs: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Return the given files and those in given folders, the latter sorted by name. Raises FileNotFoundError, and
    ValueError if there are no files, a file is given twice, or the formats differ."""
    given = [inputs] if isinstance(inputs, (str, os.PathLike)) else list(inputs)
    found: list[Path] = []
    for name in given:
        if "://" in str(name):
            raise ValueError(f"{name} is an address; expected a path that all machines of the cluster can read")
        path = Path(name).resolve()
        if path.is_dir():
            found += sorted(file for file in path.iterdir() if file.suffix.lower() in _FORMATS and file.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise FileNotFoundError(2, "no such file or folder; check the path", str(name))
    if not found:
        raise ValueError("there is no .jsonl or .parquet file among the inputs; check the path")
    if len({format_of(path) for path in found}) > 1:
        raise ValueError("the inputs are JSONL and Parquet; give files of one format at a time")
    if len(set(found)) < len(found):
        raise ValueError("a file is named twice among the inputs; name it once")
    return found
