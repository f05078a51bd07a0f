"""Metadata values as the bytes of a GGUF file."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from llamacpu.gguf.metadata import Metadata, StringArray
from llamacpu.gguf.types import VALUE_TYPES

__all__ = ["Typed", "packed_string", "packed_value", "typed_metadata"]

_NUMBERS = {name: number for number, name in enumerate(VALUE_TYPES)}
_LAYOUTS = {
    "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i", "float32": "f", "bool": "?",
    "uint64": "Q", "int64": "q", "float64": "d",
}  # fmt: skip
_BOUNDS = {"uint32": (0, 2**32 - 1), "int32": (-(2**31), 2**31 - 1), "uint64": (0, 2**64 - 1), "int64": (-(2**63), 0)}


class Typed(NamedTuple):
    """A metadata value with its type in the file.

    value  a bool, int, float or str, or a list or NumPy array of them
    type   "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64", "bool" or
           "string"; of an array, the type of its elements
    """

    value: Any
    type: str


def typed_metadata(metadata: Metadata) -> dict[str, Typed]:
    """The metadata of a file with the types that its values have there, to be changed and written again."""
    typed = {}
    for key, value in metadata.items():
        kind = metadata.value_type(key)
        typed[key] = Typed(value, kind) if kind else Typed(value, _type_of(value, key))
    return typed


def packed_string(text: str | bytes) -> bytes:
    """A string with its length in front."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw)) + raw


def packed_value(value: Any, key: str) -> bytes:
    """A value with its type in front.

    A plain int becomes a uint32 (an int32 if it is negative, 64 bits if it does not fit), a float a float32, a list an
    array of int32, float32, bool or string, a NumPy array one of its own type. `Typed` names another type.

    Raises ValueError for a value that its type cannot hold, TypeError for one that has no type in a GGUF file.
    """
    kind = value.type if isinstance(value, Typed) else _type_of(value, key)
    value = value.value if isinstance(value, Typed) else value
    if kind not in _NUMBERS or kind == "array":
        raise ValueError(f"metadata key {key!r} has the type {kind!r}; expected one of {', '.join(sorted(_LAYOUTS))}")
    if isinstance(value, StringArray):
        head = struct.pack("<IIQ", _NUMBERS["array"], _NUMBERS["string"], len(value))
        return head + value.data()
    if _is_array(value):
        head = struct.pack("<IIQ", _NUMBERS["array"], _NUMBERS[kind], len(value))
        return head + _packed_elements(value, kind, key)
    return struct.pack("<I", _NUMBERS[kind]) + _packed_elements([value], kind, key)


def _packed_elements(values: Sequence[Any], kind: str, key: str) -> bytes:
    if kind == "string":
        if not all(isinstance(value, (str, bytes)) for value in values):
            raise TypeError(f"metadata key {key!r} holds something other than strings; expected str")
        return b"".join(map(packed_string, values))
    try:
        if kind.startswith("float"):
            return struct.pack(f"<{len(values)}{_LAYOUTS[kind]}", *(_float(value, kind) for value in values))
        if kind == "bool":
            return bytes(_boolean(value) for value in values)
        return struct.pack(f"<{len(values)}{_LAYOUTS[kind]}", *values)
    except (struct.error, OverflowError, ValueError, TypeError) as error:
        raise ValueError(f"metadata key {key!r} cannot be written as {kind}: {error}; name another type") from None


def _float(value: Any, kind: str) -> float:
    number = float(value)
    # struct refuses what would round to infinity; the number of the file is then infinite, as in every other writer.
    if kind == "float32" and math.isfinite(number) and abs(number) > 3.4028235677973366e38:
        return math.copysign(math.inf, number)
    return number


def _boolean(value: Any) -> int:
    if value not in (0, 1):
        raise ValueError(f"{value!r} is neither true nor false")
    return int(value)


def _is_array(value: Any) -> bool:
    return isinstance(value, (list, tuple, StringArray)) or (hasattr(value, "dtype") and getattr(value, "ndim", 0) == 1)


def _type_of(value: Any, key: str) -> str:
    if isinstance(value, StringArray):
        return "string"
    if hasattr(value, "dtype"):
        return str(value.dtype.name)
    if isinstance(value, (list, tuple)):
        return _type_of_elements(value, key)
    if isinstance(value, int) and not isinstance(value, bool):
        names = ("uint32", "uint64") if value >= 0 else ("int32", "int64")
        return next((name for name in names if _BOUNDS[name][0] <= value <= _BOUNDS[name][1]), names[1])
    for kind, name in ((bool, "bool"), (float, "float32"), (str, "string"), (bytes, "string")):
        if isinstance(value, kind):
            return name
    raise TypeError(
        f"metadata key {key!r} is a {type(value).__name__}; expected bool, int, float, str, or a list or array of them"
    )


def _type_of_elements(values: Sequence[Any], key: str) -> str:
    if not values:
        raise ValueError(f"metadata key {key!r} is an empty list; name the type of its elements with Typed")
    if all(isinstance(value, bool) for value in values):
        return "bool"
    if all(isinstance(value, (str, bytes)) for value in values):
        return "string"
    if all(isinstance(value, int) for value in values):
        return "int32"
    if all(isinstance(value, (int, float)) for value in values):
        return "float32"
    raise TypeError(f"metadata key {key!r} is a list of several types; expected all strings, numbers or booleans")
