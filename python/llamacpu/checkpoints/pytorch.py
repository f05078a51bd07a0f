"""Reading what `torch.save` wrote: since version 1.6 a zip archive of a pickle and storages.

Nothing is unpickled (see `pickles`) and nothing decompressed: storages lie in the archive as they are.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from llamacpu.checkpoints.pickles import Storage, TensorView, read_pickle, read_pickles
from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import LazyTensor, StoredTensor
from llamacpu.checkpoints.types import RAW
from llamacpu.checkpoints.views import StridedTensor
from llamacpu.errors import CheckpointError

__all__ = ["MAGIC", "read_pytorch"]

MAX_PICKLE = 64 << 20
MAX_DIMENSIONS = 16
_LOCAL_HEADER = 30  # bytes before the name; PKZIP's application note, 4.3.7
MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the pickle of a number, with which old files begin
_OLD_VERSION = 1001
_WRAPPERS = ("state_dict", "model", "module", "model_state_dict")


def read_pytorch(path: Path) -> dict[str, LazyTensor]:
    """Return the tensors of the table in a PyTorch file, in its order.

    A table within the table is used if it has one of the usual names ("state_dict", "model") and the outer one holds
    no tensor. Values that are not tensors are left out.

    Raises CheckpointError if the file is damaged, is no table of tensors, or asks for anything beyond tensors.
    """
    source = Source(path)
    if source.read(0, min(source.size, len(MAGIC))) == MAGIC:
        table, place = _old(source)
    else:
        archive = _Archive(source)
        table, place = read_pickle(archive.pickle(), f"{path.name}: data.pkl"), archive.storage
    for _ in _WRAPPERS:
        if isinstance(table, dict) and not any(isinstance(value, TensorView) for value in table.values()):
            table = next((table[name] for name in _WRAPPERS if isinstance(table.get(name), dict)), table)
    if not isinstance(table, dict):
        raise CheckpointError(f"{path.name}: expected a table of tensors, found {type(table).__name__}")
    views = {name: view for name, view in table.items() if isinstance(name, str) and isinstance(view, TensorView)}
    if not views:
        raise CheckpointError(f"{path.name}: no tensors in it; expected a table from names to tensors (a state dict)")
    return {name: _tensor(name, view, source, place) for name, view in views.items()}


def _old(source: Source) -> tuple[Any, Callable[[str], tuple[int, int]]]:
    """The form before version 1.6: pickles of a magic number, a version, the machine, the table and the keys of its
    storages; then each storage after its number of elements."""
    values, end = read_pickles(source.read(0, min(source.size, MAX_PICKLE)), 5, source.name)
    _, version, machine, table, keys = values
    known = isinstance(machine, dict) and machine.get("little_endian") is True and version == _OLD_VERSION
    if not known or not isinstance(keys, list) or not all(type(key) is str for key in keys):
        raise CheckpointError(f"{source.name}: not PyTorch's form {_OLD_VERSION} of a little-endian machine")
    sizes = {storage.key: RAW[storage.dtype].itemsize for storage in _storages(table)}
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if key not in sizes:
            raise CheckpointError(f"{source.name}: the storage {key!r:.40} belongs to no tensor of the table")
        size = int.from_bytes(source.read(end, 8), "little") * sizes[key]
        places[key] = (end + 8, size)
        end += 8 + size
    if end > source.size:
        raise CheckpointError(
            f"{source.name}: {source.size} bytes, where its storages end at {end}; it was not copied whole"
        )

    def place(key: str) -> tuple[int, int]:
        if key not in places:
            raise CheckpointError(f"{source.name}: the storage {key!r:.40} is missing")
        return places[key]

    return table, place


def _storages(table: Any) -> Iterator[Storage]:
    """The storages of the tensors in a table, and in the tables within it; none is looked into twice."""
    waiting, seen = [table], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, TensorView):
            yield value.storage
        elif isinstance(value, dict) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values())


class _Archive:
    """The entries of a zip archive whose content is stored as it is."""

    def __init__(self, source: Source) -> None:
        self.source = source
        try:
            with source.opened() as file, zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
        except CheckpointError:
            raise
        except OSError as error:
            raise CheckpointError(f"{source.name}: cannot be read: {error}") from error
        except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, EOFError, struct.error) as error:
            raise CheckpointError(
                f"{source.name}: not a whole zip archive ({error}); it is damaged or was not copied whole"
            ) from error
        self.entries = {entry.filename: entry for entry in entries}
        if len(self.entries) != len(entries):
            raise CheckpointError(f"{source.name}: two entries of the archive have the same name")
        pickles = [name for name in self.entries if name.endswith("/data.pkl") and name.count("/") == 1]
        if len(pickles) != 1:
            raise CheckpointError(f"{source.name}: {len(pickles)} pickles in the archive; expected one, data.pkl")
        self.prefix = pickles[0].removesuffix("data.pkl")
        order = f"{self.prefix}byteorder"
        if order in self.entries and self.small(order, 16) != b"little":
            raise CheckpointError(f"{source.name}: its numbers are not little-endian; save it again on such a machine")

    def pickle(self) -> bytes:
        return self.small(f"{self.prefix}data.pkl", MAX_PICKLE)

    def small(self, name: str, limit: int) -> bytes:
        offset, size = self.place(name)
        if size > limit:
            raise CheckpointError(f"{self.source.name}: {name!r:.120} has {size} bytes; expected at most {limit}")
        return self.source.read(offset, size)

    def place(self, name: str) -> tuple[int, int]:
        """Return where the content of an entry begins in the file, and its size."""
        entry = self.entries.get(name)
        if entry is None:
            raise CheckpointError(f"{self.source.name}: {name!r:.120} is missing in the archive")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
            raise CheckpointError(
                f"{self.source.name}: {name!r:.120} is compressed or encrypted, which PyTorch never does; "
                "save the model again"
            )
        header = self.source.read(entry.header_offset, _LOCAL_HEADER)
        names, extra = struct.unpack("<HH", header[26:30])
        offset = entry.header_offset + _LOCAL_HEADER + names + extra
        if header[:4] != b"PK\x03\x04" or offset + entry.file_size > self.source.size:
            raise CheckpointError(f"{self.source.name}: {name!r:.120} is not where the archive says: it is damaged")
        return offset, entry.file_size

    def storage(self, key: str) -> tuple[int, int]:
        """Return where a storage begins, and its size in bytes."""
        return self.place(f"{self.prefix}data/{key}")


def _tensor(name: str, view: TensorView, source: Source, place: Callable[[str], tuple[int, int]]) -> LazyTensor:
    where = f"{source.name}: tensor {name!r:.120}"
    shape, strides = view.shape, view.stride
    numbers = _are_sizes(shape) and _are_sizes(strides) and _are_sizes((view.offset,))
    if not numbers or len(shape) != len(strides) or math.prod(max(length, 1) for length in shape) > 1 << 60:
        raise CheckpointError(f"{where}: its shape, strides and offset are not numbers from 0 to 2^60")
    start, size = place(view.storage.key)
    itemsize = RAW[view.dtype].itemsize
    if size != view.storage.count * RAW[view.storage.dtype].itemsize:
        raise CheckpointError(f"{where}: its storage has {size} bytes, not those of {view.storage.count} elements")
    count = size // itemsize
    elements = math.prod(shape)
    reach = view.offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) + 1
    # More elements than the storage has: the view repeats them, and its size would not be that of the file.
    if elements and (reach > count or elements > count):
        raise CheckpointError(f"{where}: {shape} with the strides {strides} reaches beyond its {count} elements")
    offset = start + view.offset * itemsize if elements else start
    if not elements or _is_contiguous(shape, strides):
        return StoredTensor(name, shape, view.dtype, source, offset)
    return StridedTensor(name, shape, view.dtype, source, offset, strides)


def _are_sizes(value: Any) -> bool:
    if not isinstance(value, tuple) or len(value) > MAX_DIMENSIONS:
        return False
    return all(type(item) is int and 0 <= item <= 1 << 60 for item in value)


def _is_contiguous(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements lie one after the other; the stride of a dimension of one element does not matter."""
    expected = 1
    for length, stride in zip(reversed(shape), reversed(strides), strict=True):
        if length > 1 and stride != expected:
            return False
        expected *= length
    return True
