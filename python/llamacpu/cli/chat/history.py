"""What was typed in conversations, in a file for later ones: one JSON string a line, for its owner's eyes alone."""

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
    """Where the file is, or would be."""
    import platformdirs

    return Path(platformdirs.user_state_dir("llamacpu", appauthor=False)) / "history.jsonl"


def read(place: Path) -> list[str]:
    """The entries, the oldest first; a line that is no JSON string is passed over.

    A file of more than a megabyte loses its oldest entries. Raises OSError where there is something that cannot be
    read; a file that is not there is an empty one.
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
    """Add an entry. Raises OSError where that is not possible."""
    if len(text) > _LONGEST:
        return
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    descriptor = os.open(place, flags, 0o600)
    try:
        if hasattr(os, "fchmod") and stat.S_IMODE(os.fstat(descriptor).st_mode) != 0o600:
            os.fchmod(descriptor, 0o600)
        # One call: lines of several conversations at once do not mix.
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
    """Only these entries are kept; mkstemp makes files that nobody else may read."""
    descriptor, name = tempfile.mkstemp(prefix=".history.", dir=place.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(map(_line, entries))
        Path(name).replace(os.path.realpath(place))
    except OSError:
        with contextlib.suppress(OSError):
            Path(name).unlink()
