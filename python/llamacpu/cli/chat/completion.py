"""Tab completion: commands, settings, their values, and file names."""

from __future__ import annotations

import os
from pathlib import Path

from llamacpu.cli.chat.commands import COMMANDS
from llamacpu.cli.chat.settings import choices, names

__all__ = ["completions"]

_WITH_FILE = ("/image", "/load", "/save")
_MOST_FILES = 200


def completions(line: str) -> list[tuple[str, str]]:
    """The completions for the text up to the cursor: pairs of the end of the line to replace and its replacement.

    Commands that take an argument end in a space, folders in a slash.
    """
    if "\n" in line:
        return []
    command, space, rest = line.partition(" ")
    if not space:
        found = [name for name in COMMANDS if name.startswith(command)] if line.startswith("/") else []
        return [(command, name + (" " if COMMANDS[name].argument else "")) for name in found]
    rest = rest.lstrip(" ")
    if command in _WITH_FILE:
        return [(rest, name) for name in _files(rest)]
    if command == "/set":
        name, space, value = rest.partition(" ")
        if not space:
            begun = name.replace("-", "_")
            return [(name, f"{known} ") for known in names() if known.startswith(begun)]
        return [(value, choice) for choice in choices(name) if choice.startswith(value)]
    return []


def _files(begun: str) -> list[str]:
    """The paths that begin with `begun`, with a ~ left as typed."""
    folder, name = os.path.split(begun)
    try:
        entries = sorted(os.scandir(Path(folder or ".").expanduser()), key=lambda entry: entry.name)
    except (OSError, ValueError, RuntimeError):
        return []
    found = []
    for entry in entries:
        hidden = entry.name.startswith(".") and not name.startswith(".")
        if hidden or not entry.name.startswith(name) or not entry.name.isprintable():
            continue
        try:
            end = "/" if entry.is_dir() else ""
        except OSError:
            end = ""
        found.append(os.path.join(folder, entry.name) + end)  # noqa: PTH118 (Path would drop a leading ./)
        if len(found) == _MOST_FILES:
            break
    return found
