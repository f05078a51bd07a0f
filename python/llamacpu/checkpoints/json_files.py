"""JSON of checkpoints: bounded, and an object where one is expected."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from llamacpu.checkpoints.source import read_small_file
from llamacpu.errors import CheckpointError

__all__ = ["parse_object", "read_object"]

MAX_FILE = 64 << 20


def read_object(path: Path) -> dict[str, Any]:
    """Return the object that a JSON file holds; CheckpointError if it is not one or is larger than 64 MiB."""
    return parse_object(read_small_file(path, MAX_FILE), path.name)


def parse_object(data: bytes, what: str, *, unique: bool = False) -> dict[str, Any]:
    """Return the object that JSON in UTF-8 describes.

    what: names it in messages. unique: refuse objects in which a key occurs twice (otherwise its last value counts).

    Raises CheckpointError for anything else.
    """
    try:
        value = json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique if unique else None)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{what}: not UTF-8 at byte {error.start}; expected JSON") from error
    except RecursionError as error:
        raise CheckpointError(f"{what}: JSON that is nested too deeply") from error
    except ValueError as error:
        raise CheckpointError(f"{what}: not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{what}: expected a JSON object, found {type(value).__name__}")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {twice!r:.80} occurs twice")
    return result
