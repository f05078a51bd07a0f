"""The input history of conversations: a file with one JSON string per line, readable only by its owner."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import stat
import tempfile
from pathlib import Path

from llamacpu.cli.terminal import one_line

__all__ = ["append", "path", "read", "trouble"]

_MOST_BYTES = 1 << 20
_MOST_ENTRIES = 1000
_LONGEST = 1 << 16


def path() -> Path:
    """The path of the history file, which need not exist."""
    import platformdirs

    return Path(platformdirs.user_state_dir("llamacpu", appauthor=False)) / "history.jsonl"


def read(place: Path) -> list[str]:
    """The entries, oldest first; lines that are not JSON strings are skipped.

    A file larger than one megabyte (2^20 bytes) loses its oldest entries. A missing file counts as empty. Raises
    OSError for a file that cannot be read and for anything but a regular file.
    """
    try:
        # Without O_NONBLOCK a named pipe would wait for its writer.
        descriptor = os.open(place, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return []
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(None, "not a regular file; remove it", str(place))
        file.seek(max(0, status.st_size - _MOST_BYTES))
        lines = file.read(_MOST_BYTES).splitlines()
    newest = (entry for entry in map(_entry, reversed(lines)) if entry is not None)
    entries = [*itertools.islice(newest, _MOST_ENTRIES)][::-1]
    if status.st_size > _MOST_BYTES:
        _replace(place, entries)
    return entries


def append(place: Path, text: str) -> None:
    """Add an entry; one longer than 65536 characters is ignored. Raises OSError if the file cannot be written."""
    if len(text) > _LONGEST:
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(place, flags, 0o600)
    try:
        if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        # A single call, so that lines of concurrent conversations do not mix.
        os.write(descriptor, _line(text))
    finally:
        os.close(descriptor)


def trouble(error: OSError) -> str:
    """A sentence for the user about a file that cannot be used."""
    return f"What is typed is not kept for later conversations: {one_line(error)}"


def _line(text: str) -> bytes:
    return json.dumps(text).encode("ascii") + b"\n"


def _entry(line: bytes) -> str | None:
    try:
        value = json.loads(line)
        return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None
    except (ValueError, RecursionError):
        return None


def _replace(place: Path, entries: list[str]) -> None:
    """Rewrite the file with only these entries; mkstemp creates files that nobody else may read."""
    descriptor, name = tempfile.mkstemp(prefix=".history.", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(map(_line, entries))
        Path(name).replace(os.path.realpath(place))
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
