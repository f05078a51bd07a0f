"""Reading what `torch.save` wrote since version 1.6: a zip archive of a pickle and of storages.

Nothing is unpickled (see `pickles`) and nothing decompressed: storages lie in the archive as they are.
"""

from __future__ import annotations

import math
import struct
import zipfile
from pathlib import Path
from typing import Any

from llamacpu.checkpoints.pickles import TensorView, read_pickle
from llamacpu.checkpoints.source import Source
from llamacpu.checkpoints.tensor import LazyTensor, StoredTensor
from llamacpu.checkpoints.types import RAW
from llamacpu.checkpoints.views import StridedTensor
from llamacpu.errors import CheckpointError

__all__ = ["read_pytorch"]

MAX_PICKLE = 64 << 20
MAX_DIMENSIONS = 16
_LOCAL_HEADER = 30  # bytes before the name; PKZIP's application note, 4.3.7
_WRAPPERS = ("state_dict", "model", "module", "model_state_dict")


def read_pytorch(path: Path) -> dict[str, LazyTensor]:
    """Return the tensors of the table in a PyTorch file, in its order.

    A table within the table is used if it has one of the usual names ("state_dict", "model") and the outer one holds
    no tensor. Values that are not tensors are left out.

    Raises CheckpointError if the file is damaged, is no table of tensors, or asks for anything beyond tensors.
    """
    archive = _Archive(Source(path))
    table = read_pickle(archive.pickle(), f"{path.name}: data.pkl")
    for _ in _WRAPPERS:
        if isinstance(table, dict) and not any(isinstance(value, TensorView) for value in table.values()):
            table = next((table[name] for name in _WRAPPERS if isinstance(table.get(name), dict)), table)
    if not isinstance(table, dict):
        raise CheckpointError(f"{path.name}: expected a table of tensors, found {type(table).__name__}")
    views = {name: view for name, view in table.items() if isinstance(name, str) and isinstance(view, TensorView)}
    if not views:
        raise CheckpointError(f"{path.name}: no tensors in it; expected a table from names to tensors (a state dict)")
    return {name: archive.tensor(name, view) for name, view in views.items()}


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

    def tensor(self, name: str, view: TensorView) -> LazyTensor:
        where = f"{self.source.name}: tensor {name!r:.120}"
        shape, strides = view.shape, view.stride
        numbers = _are_sizes(shape) and _are_sizes(strides) and _are_sizes((view.offset,))
        if not numbers or len(shape) != len(strides) or math.prod(max(length, 1) for length in shape) > 1 << 60:
            raise CheckpointError(f"{where}: its shape, strides and offset are not numbers from 0 to 2^60")
        start, size = self.place(f"{self.prefix}data/{view.storage.key}")
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
            return StoredTensor(name, shape, view.dtype, self.source, offset)
        return StridedTensor(name, shape, view.dtype, self.source, offset, strides)


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
