"""Writes files in the form of torch.save for the tests, each instruction as right or wrong as a test wants."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

STORAGES = {
    "float32": "Float", "float16": "Half", "float64": "Double", "int64": "Long", "int8": "Char", "uint8": "Byte",
    "int32": "Int", "int16": "Short", "bool": "Bool", "uint16": "BFloat16",
}  # fmt: skip


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def whole(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def several(*items: bytes) -> bytes:
    """A tuple."""
    return b"(" + b"".join(items) + b"t"


def named(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def storage(kind: str, key: str, count: int) -> bytes:
    return several(text("storage"), named("torch", f"{kind}Storage"), text(key), text("cpu"), whole(count)) + b"Q"


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    sizes, steps = (several(*map(whole, numbers)) for numbers in (shape, strides))
    hooks = named("collections", "OrderedDict") + b")R"
    return (
        named("torch._utils", "_rebuild_tensor_v2")
        + several(stored, whole(offset), sizes, steps, b"\x89", hooks)
        + b"R"
    )


def table(items: Mapping[str, bytes]) -> bytes:
    """An OrderedDict with attributes, as `Module.state_dict` returns."""
    entries = b"".join(text(name) + value for name, value in items.items())
    return named("collections", "OrderedDict") + b")R(" + entries + b"u}" + text("_metadata") + b"}sb"


def pickled(value: bytes) -> bytes:
    return b"\x80\x02" + value + b"."


def archive(
    pickle: bytes, storages: Mapping[str, bytes], compression: int = zipfile.ZIP_STORED, **other: bytes
) -> bytes:
    content = {"data.pkl": pickle, "byteorder": b"little", "version": b"3\n"} | other
    content |= {f"data/{key}": data for key, data in storages.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as entries:
        for name, data in content.items():
            entries.writestr(f"archive/{name}", data)
    return file.getvalue()


def strides_of(array: NDArray[Any]) -> tuple[int, ...]:
    return tuple(stride // array.itemsize for stride in array.strides)


def saved(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The file of a table of arrays; views keep their strides, and uint16 stands for BF16."""
    items, storages = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        base = array if array.base is None else array.base
        offset = (array.__array_interface__["data"][0] - base.__array_interface__["data"][0]) // array.itemsize
        storages[str(key)] = base.tobytes()
        stored = storage(STORAGES[array.dtype.name], str(key), base.size)
        items[name] = tensor(stored, offset, array.shape, strides_of(array))
    return archive(pickled(table(items)), storages)
