"""Reads training data: JSON lines, JSON, plain text, Parquet, or dicts of a program, as one kind of record.

Every record knows its place (file and line), which errors name.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from llamacpu.errors import TrainingError
from llamacpu.tools.train.messages import conversation, from_share

__all__ = ["Data", "Record", "read_records"]

Data: TypeAlias = "str | os.PathLike[str] | Iterable[str | os.PathLike[str] | Mapping[str, Any]]"
"""A file, or files and dicts in any order."""

_EXPECTED = (
    "expected an object with 'messages' (a conversation), 'prompt' and 'completion', or 'text'; "
    "'conversations' (ShareGPT) and 'instruction' with 'output' (Alpaca) are read, too"
)


class Record(NamedTuple):
    """One entry of the training data: exactly one of `messages`, `prompt` and `text` is not None."""

    place: str
    """where it was read, for messages"""
    messages: list[dict[str, Any]] | None = None
    tools: list[Any] | None = None
    variables: Mapping[str, Any] | None = None
    """variables of the chat template, such as enable_thinking"""
    prompt: str | None = None
    completion: str = ""
    text: str | None = None


def read_records(data: Data) -> Iterator[Record]:
    """Yield the records of files and dicts in their order.

    A file is read by its suffix: .jsonl and .ndjson as JSON lines, .json as a list of objects or JSON lines, .parquet
    with pyarrow, and .txt, .text and .md as one text. Raises TrainingError, naming file and line, for anything that is
    no record; OSError for a file that cannot be read; ImportError if pyarrow is needed and not installed.
    """
    parts = [data] if isinstance(data, (str, os.PathLike, Mapping)) else data
    for number, part in enumerate(parts, 1):
        if isinstance(part, Mapping):
            yield _record(part, f"record {number}")
        elif isinstance(part, (str, os.PathLike)):
            yield from _read_file(Path(part))
        else:
            raise TypeError(f"record {number} is a {type(part).__name__}; expected a dict, or the path of a file")


def _read_file(path: Path) -> Iterator[Record]:
    suffix = path.suffix.lower()
    if suffix not in _READERS:
        known = ", ".join(sorted(_READERS))
        raise TrainingError(f"{path}: the suffix {suffix!r} does not say what is in the file; expected one of {known}")
    if path.is_dir():
        raise TrainingError(f"{path}: this is a folder; name the files in it")
    return _READERS[suffix](path)


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            place = f"{path.name}, line {number}"
            text = _decoded(line, place, first=number == 1).rstrip("\r\n")
            if text.strip():
                yield _record(_parsed(text, place), place)


def _json(path: Path) -> Iterator[Record]:
    with path.open("rb") as file:
        start = file.read(256).lstrip(b"\xef\xbb\xbf \t\r\n")
    if not start.startswith(b"["):
        yield from _json_lines(path)
        return
    entries = _parsed(_decoded(path.read_bytes(), path.name, first=True), path.name)
    for number, entry in enumerate(entries, 1):
        place = f"{path.name}, entry {number}"
        yield _record(entry, place)


def _plain_text(path: Path) -> Iterator[Record]:
    text = _decoded(path.read_bytes(), path.name, first=True).replace("\r\n", "\n")
    if text.strip():
        yield Record(path.name, text=text)


def _parquet(path: Path) -> Iterator[Record]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError(f"{path.name}: reading Parquet needs pyarrow; pip install 'llamacpu[train]'") from None
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield _record(_without_nulls(row), f"{path.name}, row {number}")
    except pyarrow.ArrowException as error:
        raise TrainingError(f"{path}: not a readable Parquet file: {error}") from None


_READERS: dict[str, Callable[[Path], Iterator[Record]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".txt": _plain_text,
    ".text": _plain_text,
    ".md": _plain_text,
}


def _without_nulls(value: Any) -> Any:
    """A row without the nulls that Parquet stores for every key that another row has."""
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value


def _decoded(data: bytes, place: str, *, first: bool) -> str:
    try:
        return data.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{place}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None


def _parsed(text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise TrainingError(f"{place}: not valid JSON at {where}: {error.msg}") from None
    except RecursionError:
        raise TrainingError(f"{place}: the JSON is nested too deeply") from None
    except ValueError as error:  # a number of too many digits
        raise TrainingError(f"{place}: not valid JSON: {error}") from None


def _record(entry: Any, place: str) -> Record:
    if not isinstance(entry, Mapping):
        raise TrainingError(f"{place}: this is a {type(entry).__name__}; {_EXPECTED}")
    kinds = [
        name for name in ("messages", "conversations", "prompt", "instruction", "text") if entry.get(name) is not None
    ]
    if not kinds:
        raise TrainingError(f"{place}: the keys are {', '.join(map(repr, entry)) or 'none'}; {_EXPECTED}")
    if len(kinds) > 1:
        raise TrainingError(f"{place}: it has {' and '.join(map(repr, kinds))}; expected one of them")
    kind = kinds[0]
    if kind == "text":
        return Record(place, text=_text(entry, "text", place))
    if kind == "instruction":
        given = _text(entry, "input", place) if entry.get("input") else ""
        prompt = "\n\n".join(filter(None, (_text(entry, "instruction", place), given)))
        return Record(place, prompt=prompt, completion=_text(entry, "output", place))
    if kind == "prompt" and not isinstance(entry["prompt"], list):
        return Record(place, prompt=_text(entry, "prompt", place), completion=_text(entry, "completion", place))
    if kind == "prompt":
        completion = entry.get("completion")
        if not isinstance(completion, list):
            raise TrainingError(f"{place}: 'prompt' is a list of messages; expected 'completion' to be one, too")
        messages = [
            {"train": False, **message} if isinstance(message, Mapping) else message for message in entry["prompt"]
        ]
        messages += completion
    elif kind == "conversations":
        messages = from_share(entry[kind], place)
    else:
        messages = entry["messages"]
    tools = entry.get("tools")
    if isinstance(tools, str):  # as Parquet files have them
        tools = _parsed(tools, f"{place}, 'tools'")
    if tools is not None and not isinstance(tools, list):
        raise TrainingError(f"{place}: 'tools' is a {type(tools).__name__}; expected a list of definitions of tools")
    variables = entry.get("chat_template_kwargs")
    if variables is not None and not isinstance(variables, Mapping):
        raise TrainingError(f"{place}: 'chat_template_kwargs' is a {type(variables).__name__}; expected an object")
    return Record(place, messages=conversation(messages, place), tools=tools or None, variables=variables)


def _text(entry: Mapping[str, Any], key: str, place: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        found = "is missing" if value is None else f"is a {type(value).__name__}"
        raise TrainingError(f"{place}: {key!r} {found}; expected a text")
    if key not in ("input", "prompt") and not value.strip():
        raise TrainingError(f"{place}: {key!r} is empty; leave such records out")
    return value
