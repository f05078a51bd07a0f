"""A GGUF file: its metadata and its tensor table.

    with llamacpu.GGUFFile("model.gguf") as file:
        print(file.metadata["general.name"], len(file.tensors))

Split models (`name-00001-of-00003.gguf`) are opened through their first file. Only headers are read: the metadata is
interpreted in `architectures`, and the native model maps the tensor data itself.

The file stays open, because string arrays are read on demand. Reading one raises a GGUFError if another program has
truncated or written to the file in the meantime.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from llamacpu import _native
from llamacpu.arguments import path as check_path
from llamacpu.errors import GGUFError
from llamacpu.gguf.header import Header, Tensor, read_header
from llamacpu.gguf.metadata import Metadata, StringArray, Value

__all__ = ["GGUFFile", "Metadata", "StringArray", "Tensor", "Value", "overridden"]

Scalar = bool | int | float | str

MAX_SHARDS = 1024
_SHARD_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")

# The old formats store their magic as a little-endian integer, so it reads backwards in the file.
_OLD_MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla", b"ggml": "ggml", b"ggjt": "ggjt"}
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a zip archive or a PyTorch checkpoint; convert the model to GGUF"),
    (b"\x80\x02", "a Python pickle, probably a PyTorch checkpoint; convert the model to GGUF"),
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer; run `git lfs pull` to get the file it stands for"),
    (b"FUGG", "a GGUF file whose magic is reversed (another byte order); convert it to little-endian"),
)


class GGUFFile:
    """The header of a GGUF file, or of all files of a split model.

    path       the file that was opened
    overrides  values that replace those in the file's metadata, by key; a key that begins with a dot belongs
               to the architecture (".rope.freq_base")
    paths      all files, the opened one first; `Tensor.file` is an index into it
    version    2 or 3
    alignment  of the tensors, in bytes
    metadata   key to value; see `Metadata`
    tensors    every tensor of every file; see `Tensor`
    nbytes     total size of all files

    Raises `GGUFError` if a file is missing, unreadable or invalid. Use it as a context manager or call `close()`.
    """

    def __init__(self, path: str | os.PathLike[str], overrides: Mapping[str, Scalar] | None = None) -> None:
        check_path("path", path)
        if not os.fspath(path):
            raise GGUFError("the path of the model is empty; give the path of a .gguf file")
        self.path: Path = Path(path)
        self.paths: list[Path] = [self.path]
        self._files: list[_native.File] = []
        self._header_bytes: list[int] = []
        try:
            first = self._read(self.path, 0)
            self.version: int = first.version
            self.alignment: int = first.alignment
            self.metadata: Metadata = first.metadata
            self.tensors: list[Tensor] = first.tensors
            self._read_other_shards(first.metadata)
        except BaseException:
            self.close()
            raise
        self.nbytes: int = sum(file.size for file in self._files)
        if overrides:
            self.metadata = overridden(self.metadata, overrides)

    def tensor_bytes(self, tensor: Tensor, start: int, end: int) -> bytes:
        """The bytes `start` to `end` (exclusive) of a tensor, as stored in the file.

        Raises GGUFError once the file is closed, ValueError for a range outside the tensor.
        """
        if not self._files:
            raise GGUFError("the GGUF file is closed: read its tensors before close()")
        if not 0 <= start <= end <= tensor.nbytes:
            raise ValueError(f"bytes {start} to {end} of a tensor of {tensor.nbytes} bytes")
        return self._files[tensor.file].read(tensor.offset + start, end - start)

    @property
    def native_files(self) -> list[_native.File]:
        """The open files, in the order of `paths`, for native code."""
        return list(self._files)

    @property
    def header_length(self) -> int:
        """Size of the first file's header in bytes: its metadata, its tensor table and the padding after them."""
        return self._header_bytes[0]

    def keep(self) -> None:
        """Read the headers into memory; from then on metadata can be read whatever happens to the files."""
        for file, length in zip(self._files, self._header_bytes, strict=True):
            file.keep(length)

    def close(self) -> None:
        """Close the files. Metadata and the tensor table stay usable, except for string arrays not yet read."""
        for file in self._files:
            file.close()
        self._files = []

    def __enter__(self) -> GGUFFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<GGUFFile {self.path.name!r}: {len(self.metadata)} keys, {len(self.tensors)} tensors>"

    def _read(self, path: Path, index: int) -> Header:
        file = _open(path)
        self._files.append(file)
        header = read_header(file, path.name, index)
        self._header_bytes.append(header.data_offset)
        return header

    def _read_other_shards(self, metadata: Metadata) -> None:
        count = metadata.get("split.count", 1)
        number = metadata.get("split.no", 0)
        if not isinstance(count, int) or not isinstance(number, int) or not 0 <= number < max(count, 1) <= MAX_SHARDS:
            raise GGUFError(
                f"{self.path.name}: split.no is {number!r:.40} and split.count {count!r:.40}; "
                f"expected a number below the count, and a count of at most {MAX_SHARDS}"
            )
        if count <= 1:
            return
        match = _SHARD_NAME.fullmatch(self.path.name)
        if match is None or int(match["count"]) != count or int(match["number"]) != number + 1:
            raise GGUFError(
                f"{self.path.name}: this is file {number + 1} of a model in {count} files; expected a name ending in "
                f"-{number + 1:05}-of-{count:05}.gguf; give the files their original names"
            )
        first = f"{match['prefix']}-00001-of-{count:05}.gguf"
        if number != 0:
            raise GGUFError(f"{self.path.name}: this is file {number + 1} of {count}; open the first one, {first}")
        for index in range(1, count):
            self._read_shard(self.path.with_name(f"{match['prefix']}-{index + 1:05}-of-{count:05}.gguf"), index, count)
        expected = metadata.get("split.tensors.count")
        if expected is not None and expected != len(self.tensors):
            raise GGUFError(
                f"{self.path.name}: the {count} files hold {len(self.tensors)} tensors, expected {expected!r:.40}; "
                "they do not belong together: get all of them again"
            )
        names: set[str] = set()
        for name in (tensor.name for tensor in self.tensors):
            if name in names:
                raise GGUFError(f"{self.path.name}: tensor {name!r} occurs in two of the {count} files; get them again")
            names.add(name)

    def _read_shard(self, path: Path, index: int, count: int) -> None:
        if not path.exists():
            raise GGUFError(
                f"{path}: no such file: part {index + 1} of {count} is missing; put all parts into one folder"
            )
        self.paths.append(path)
        shard = self._read(path, index)
        found = (shard.metadata.get("split.no"), shard.metadata.get("split.count"))
        if found != (index, count):
            raise GGUFError(
                f"{path.name}: split.no and split.count are {found!r:.60}, expected {(index, count)}; "
                "the files do not belong together: get all of them again"
            )
        self.tensors.extend(shard.tensors)


def overridden(metadata: Metadata, overrides: Mapping[str, Scalar]) -> Metadata:
    """A copy of the metadata with other values; a key that begins with a dot belongs to the architecture."""
    values = dict(metadata)
    for key, value in overrides.items():
        if not isinstance(value, (bool, int, float, str)):
            kind = type(value).__name__
            raise TypeError(f"the override of {key!r} is a {kind}; expected bool, int, float or str")
        values[f"{metadata.get('general.architecture')}{key}" if key.startswith(".") else key] = value
    types = {key: kind for key in metadata if key not in overrides and (kind := metadata.value_type(key))}
    return Metadata(values, types)


def _open(path: Path) -> _native.File:
    """Open a regular file that starts with the GGUF magic."""
    try:
        # Opening a pipe would block until it has a writer, so check first.
        if not stat.S_ISREG(path.stat().st_mode):
            kind = "a folder; give the path of a .gguf file in it" if path.is_dir() else "not a regular file"
            raise GGUFError(f"{path}: this is {kind}")
        file = _native.File(os.fspath(path))
        _check_magic(path.name, file.read(0, min(64, file.size)))
        return file
    except FileNotFoundError as error:
        raise GGUFError(f"{path}: no such file; check the path") from error
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GGUFError(f"{path}: the file cannot be opened: {reason}") from error
    except ValueError as error:
        if isinstance(error, GGUFError):
            raise
        # A path containing a NUL character.
        raise GGUFError(f"{path}: the file cannot be opened: {error}") from error


def _check_magic(name: str, start: bytes) -> None:
    """Raise an error that says what the file is if it is not GGUF."""
    if start[:4] == b"GGUF":
        return
    if start[:4] in _OLD_MAGICS:
        old = _OLD_MAGICS[start[:4]]
        raise GGUFError(f"{name}: this is a file in the old format {old!r}; get the model as GGUF or convert it again")
    for magic, meaning in _OTHER_FORMATS:
        if start.startswith(magic):
            raise GGUFError(f"{name}: not a GGUF file, but {meaning}")
    if start[8:10] == b'{"':
        raise GGUFError(f"{name}: not a GGUF file, but safetensors; convert the model to GGUF")
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise GGUFError(f"{name}: not a GGUF file, but a web page saved under its name; use the direct download link")
    if not start:
        raise GGUFError(f"{name}: the file is empty; its download did not start: get it again")
    raise GGUFError(
        f"{name}: not a GGUF file: it starts with {start[:4]!r}, expected b'GGUF'; check the path or download it again"
    )
