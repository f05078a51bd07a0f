"""Reader for the header of one GGUF file: metadata and tensor table, every size checked against the file's length.

Layout: magic, version, counts, key-value pairs, tensor infos, padding, data (the GGUF specification of the ggml
project, versions 2 and 3). Nothing larger than the length of the file justifies is allocated, and no tensor data is
read.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from llamacpu.errors import GGUFError
from llamacpu.gguf.metadata import Metadata, StringArray, Value
from llamacpu.gguf.types import REMOVED_TYPES, TENSOR_TYPES, VALUE_TYPES

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from llamacpu import _native

__all__ = ["Header", "Tensor", "read_header"]

MAX_KEYS = 1 << 16
MAX_TENSORS = 1 << 18
MAX_KEY_BYTES = 65535
MAX_TENSOR_NAME_BYTES = 63
MAX_STRING_BYTES = 1 << 30
MAX_ARRAY_ELEMENTS = 1 << 30
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 20
DEFAULT_ALIGNMENT = 32
_BLOCK_BYTES = 1 << 16
LARGEST = 2**63 - 1

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TYPE_AND_OFFSET = struct.Struct("<IQ")
_BOOL, _STRING, _ARRAY = 7, 8, 9
# Metadata value types: type number -> layout of one value, NumPy dtype of an array of them.
_SCALARS = {
    0: (struct.Struct("<B"), "<u1"),
    1: (struct.Struct("<b"), "<i1"),
    2: (struct.Struct("<H"), "<u2"),
    3: (struct.Struct("<h"), "<i2"),
    4: (struct.Struct("<I"), "<u4"),
    5: (struct.Struct("<i"), "<i4"),
    6: (struct.Struct("<f"), "<f4"),
    _BOOL: (struct.Struct("<B"), "<u1"),
    10: (struct.Struct("<Q"), "<u8"),
    11: (struct.Struct("<q"), "<i8"),
    12: (struct.Struct("<d"), "<f8"),
}
# A pair takes at least a key length, one byte of key, a type and one byte of value; a tensor info takes at least a name
# length, one byte of name, the number of dimensions, a type and an offset.
_SMALLEST_PAIR = 8 + 1 + 4 + 1
_SMALLEST_INFO = 8 + 1 + 4 + 4 + 8


class Tensor(NamedTuple):
    """One row of the tensor table."""

    name: str
    type: int
    """ggml's number for the type"""
    type_name: str
    shape: tuple[int, ...]
    """in ggml's ne order: the first dimension is the contiguous one (the inputs of a matrix); () for a scalar"""
    offset: int
    """position of the first byte, counted from the start of the file"""
    nbytes: int
    file: int
    """the file of a split model that holds the tensor: index into `GGUFFile.paths`"""


class Header(NamedTuple):
    """The contents of one file's header."""

    version: int
    alignment: int
    metadata: Metadata
    tensors: list[Tensor]
    data_offset: int


class _Cursor:
    """A position in the file. Every read is first checked against the file's length; bytes are read in blocks."""

    def __init__(self, file: _native.File, name: str) -> None:
        self.file = file
        self.size = file.size
        self.name = name
        self.position = 0
        self._block = b""
        self._block_start = 0

    def error(self, problem: str) -> GGUFError:
        return GGUFError(f"{self.name}: {problem}")

    def need(self, count: int, what: str) -> None:
        if count > self.size - self.position:
            raise self.error(
                f"the file ends in the middle of {what} (byte {self.size}); "
                "its download did not finish or it is damaged: get it again"
            )

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        start = self.position - self._block_start
        if start < 0 or start + count > len(self._block):
            length = min(max(count, _BLOCK_BYTES), self.size - self.position)
            self._block, self._block_start, start = self.file.read(self.position, length), self.position, 0
        self.position += count
        return self._block[start : start + count]

    def unpack(self, layout: struct.Struct, what: str) -> int | float:
        value: int | float = layout.unpack(self.take(layout.size, what))[0]
        return value

    def integer(self, layout: struct.Struct, what: str) -> int:
        return int(self.unpack(layout, what))

    def raw_string(self, what: str, limit: int = MAX_STRING_BYTES) -> bytes:
        length = self.integer(_U64, what)
        if length > limit:
            raise self.error(f"{what} claims {length} bytes, the limit is {limit}; the file is damaged: get it again")
        return self.take(length, what)

    def count(self, what: str, smallest: int, limit: int) -> int:
        number = self.integer(_U64, f"the number of {what}")
        if number > limit or number * smallest > self.size - self.position:
            raise self.error(
                f"the header claims {number} {what}, more than the file can hold or than the limit of {limit}; "
                "the file is damaged: get it again"
            )
        return number


def read_header(source: _native.File, name: str, file: int) -> Header:
    """Read the header at the start of `source`.

    `name` is put in front of every error message; `file` is stored in every `Tensor`. Raises `GGUFError`.
    The caller has already checked the magic.
    """
    cursor = _Cursor(source, name)
    cursor.need(24, "the header")
    cursor.position = 4
    version = cursor.integer(_U32, "the version")
    if version & 0xFFFF == 0 and version != 0:
        raise cursor.error("the file is in big-endian byte order, this reader takes little-endian files; convert it")
    if version not in (2, 3):
        advice = "convert the model again" if version < 2 else "the file is newer than this reader: update llamacpu"
        raise cursor.error(f"GGUF version {version}; versions 2 and 3 are read; {advice}")
    tensor_count = cursor.count("tensors", _SMALLEST_INFO, MAX_TENSORS)
    pair_count = cursor.count("metadata keys", _SMALLEST_PAIR, MAX_KEYS)
    values: dict[str, Value] = {}
    types: dict[str, str] = {}
    for number in range(pair_count):
        key = _key(cursor, number)
        if key in values:
            raise cursor.error(f"metadata key {_shown(key)} occurs twice; the file is damaged or was written wrongly")
        values[key], types[key] = _value(cursor, key)
    alignment = _alignment(cursor, values)
    infos = [_tensor_info(cursor, number) for number in range(tensor_count)]
    data_offset = -(-cursor.position // alignment) * alignment
    tensors = [_place(cursor, info, alignment, data_offset, file) for info in infos]
    _refuse_overlap(cursor, tensors)
    return Header(version, alignment, Metadata(values, types), tensors, data_offset)


def _key(cursor: _Cursor, number: int) -> str:
    raw = cursor.raw_string(f"metadata key {number}", MAX_KEY_BYTES)
    if not raw:
        raise cursor.error(f"metadata key {number} is empty; the file is damaged or was written wrongly")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.error(f"metadata key {number} is not text ({raw[:20]!r}); the file is damaged") from None


def _shown(key: str) -> str:
    return repr(key if len(key) <= 80 else key[:77] + "...")


def _value(cursor: _Cursor, key: str) -> tuple[Value, str]:
    """A value and the name of its type, for an array that of its elements."""
    what = f"the value of {_shown(key)}"
    kind = cursor.integer(_U32, what)
    if kind == _STRING:
        return cursor.raw_string(what).decode("utf-8", "replace"), "string"
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind not in _SCALARS:
        raise cursor.error(f"{what} has the unknown type {kind}; known are 0 to 12; the file is damaged")
    value = cursor.unpack(_SCALARS[kind][0], what)
    if kind != _BOOL:
        return value, VALUE_TYPES[kind]
    if value not in (0, 1):
        raise cursor.error(f"{what} is a boolean with the byte {value}; expected 0 or 1; the file is damaged")
    return bool(value), "bool"


def _array(cursor: _Cursor, key: str) -> tuple[Value, str]:
    what = f"the array {_shown(key)}"
    kind = cursor.integer(_U32, what)
    if kind == _ARRAY:
        raise cursor.error(f"{what} holds arrays; arrays of arrays are not used by any model and are not read")
    if kind != _STRING and kind not in _SCALARS:
        raise cursor.error(f"{what} has the unknown element type {kind}; known are 0 to 12; the file is damaged")
    size = 8 if kind == _STRING else _SCALARS[kind][0].size
    count = cursor.count(f"elements in {what}", size, MAX_ARRAY_ELEMENTS)
    if kind == _STRING:
        return _string_array(cursor, count), "string"
    return _numeric_array(cursor, what, kind, count), VALUE_TYPES[kind]


def _string_array(cursor: _Cursor, count: int) -> StringArray:
    start = cursor.position
    try:
        offsets, end = cursor.file.index_strings(start, count)
    except GGUFError as error:
        raise cursor.error(str(error)) from None
    cursor.position = end
    return StringArray(cursor.file, start, count, offsets, end)


def _numeric_array(cursor: _Cursor, what: str, kind: int, count: int) -> numpy.typing.NDArray[numpy.generic]:
    import numpy as np

    dtype = np.dtype(_SCALARS[kind][1])
    array: numpy.typing.NDArray[numpy.generic] = np.frombuffer(cursor.take(count * dtype.itemsize, what), dtype)
    if kind == _BOOL:
        if count and int(array.max()) > 1:
            raise cursor.error(f"{what} holds booleans other than 0 and 1; the file is damaged")
        return array.astype(np.bool_)
    return array


def _alignment(cursor: _Cursor, values: dict[str, Value]) -> int:
    value = values.get("general.alignment", DEFAULT_ALIGNMENT)
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and 0 < value <= MAX_ALIGNMENT
        and value & (value - 1) == 0
    ):
        return value
    raise cursor.error(f"general.alignment is {value!r:.60}; expected a power of two of at most {MAX_ALIGNMENT}")


class _Info(NamedTuple):
    name: str
    kind: int
    shape: tuple[int, ...]
    offset: int


def _tensor_info(cursor: _Cursor, number: int) -> _Info:
    what = f"the description of tensor {number}"
    raw = cursor.raw_string(what, MAX_TENSOR_NAME_BYTES)
    try:
        name = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.error(f"the name of tensor {number} is not text ({raw[:20]!r}); the file is damaged") from None
    if not name:
        raise cursor.error(f"tensor {number} has no name; the file is damaged or was written wrongly")
    dimensions = cursor.integer(_U32, what)
    if dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"tensor {name!r} claims {dimensions} dimensions; at most {MAX_DIMENSIONS} are possible")
    rest = cursor.take(8 * dimensions + _TYPE_AND_OFFSET.size, what)
    shape = struct.unpack_from(f"<{dimensions}q", rest)
    kind, offset = _TYPE_AND_OFFSET.unpack_from(rest, 8 * dimensions)
    return _Info(name, kind, shape, offset)


def _place(cursor: _Cursor, info: _Info, alignment: int, data_offset: int, file: int) -> Tensor:
    """Check that the tensor is inside the data section; Python's integers cannot overflow, so Rust's will not later."""
    name, kind, shape, offset = info
    if kind in REMOVED_TYPES:
        type_name, advice = REMOVED_TYPES[kind]
        raise cursor.error(f"tensor {name!r} has the removed type {type_name} (number {kind}): {advice}")
    if kind not in TENSOR_TYPES:
        raise cursor.error(
            f"tensor {name!r} has the unknown type number {kind}; the file is damaged or newer than this reader"
        )
    type_name, block_elements, block_bytes = TENSOR_TYPES[kind]
    elements = 1
    for size in shape:
        elements *= size
    if any(size < 0 for size in shape) or elements > LARGEST:
        raise cursor.error(f"tensor {name!r} has the impossible shape {shape}; the file is damaged")
    if (shape[0] if shape else 1) % block_elements:
        raise cursor.error(
            f"tensor {name!r} of type {type_name} has rows of {shape[0] if shape else 1} elements; "
            f"expected a multiple of {block_elements}; the file is damaged or was written wrongly"
        )
    nbytes = elements // block_elements * block_bytes
    if offset % alignment:
        raise cursor.error(f"tensor {name!r} starts at the offset {offset}; expected a multiple of {alignment}")
    if offset + nbytes > max(0, cursor.size - data_offset):
        raise cursor.error(
            f"tensor {name!r} reaches byte {data_offset + offset + nbytes}, but the file has {cursor.size} bytes; "
            "its download did not finish or it is damaged: get it again"
        )
    return Tensor(name, kind, type_name, shape, data_offset + offset, nbytes, file)


def _refuse_overlap(cursor: _Cursor, tensors: list[Tensor]) -> None:
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            raise cursor.error(f"tensor {tensor.name!r} occurs twice; the file is damaged or was written wrongly")
        names.add(tensor.name)
    end, previous = 0, ""
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.nbytes and tensor.offset < end:
            raise cursor.error(f"tensors {previous!r} and {tensor.name!r} overlap; the file is damaged")
        if tensor.nbytes:
            end, previous = tensor.offset + tensor.nbytes, tensor.name
