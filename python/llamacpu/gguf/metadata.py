"""The metadata of a GGUF file: a read-only mapping, with getters that tolerate the variations of third-party writers.

Writers disagree on integer widths and signs, and some write integers for floats. The getters accept any type that holds
the value and raise `ModelError`, naming the key, if the value is missing or cannot be valid for the key.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Union, overload

from llamacpu.errors import ModelError

if TYPE_CHECKING:
    import numpy
    import numpy.typing

    from llamacpu import _native

__all__ = ["Metadata", "StringArray", "Value"]


_BLOCK_BYTES = 1 << 20


class StringArray:
    """An array of strings that are read from the file on demand.

    offset    position in the file of the first element (its length prefix)
    count     number of strings
    end       position after the last element
    offsets   uint64[count + 1]: string i is the bytes `offsets[i] + 8` to `offsets[i + 1]` of the file

    Reading raises GGUFError once the file is closed, or if it has been truncated or written to.
    """

    __slots__ = ("_file", "count", "end", "offset", "offsets")

    def __init__(
        self, file: _native.File, offset: int, count: int, offsets: numpy.typing.NDArray[numpy.uint64], end: int
    ) -> None:
        self._file = file
        self.offset: int = offset
        self.count: int = count
        self.offsets: numpy.typing.NDArray[numpy.uint64] = offsets
        self.end: int = end

    def raw(self, index: int) -> bytes:
        """The bytes of string `index` as stored in the file (they need not be valid UTF-8).

        Raises IndexError unless 0 <= index < count.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"index {index} in an array of {self.count} strings")
        start = int(self.offsets[index]) + 8
        return self._file.read(start, int(self.offsets[index + 1]) - start)

    def data(self) -> bytes:
        """The whole array as stored in the file: each string preceded by its length (8 bytes, little-endian)."""
        return self._file.read(self.offset, self.end - self.offset)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            places = range(*index.indices(self.count))
            return list(self._strings(places.start, places.stop)) if places.step == 1 else [self[i] for i in places]
        return self.raw(index + self.count if index < 0 else index).decode("utf-8", "replace")

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[str]:
        return self._strings(0, self.count)

    def _strings(self, start: int, stop: int) -> Iterator[str]:
        """The strings `start` to `stop`, reading as many at once as fit into a block."""
        while start < stop:
            first = int(self.offsets[start])
            end = max(start + 1, min(stop, int(self.offsets.searchsorted(first + _BLOCK_BYTES, "right")) - 1))
            block = self._file.read(first, int(self.offsets[end]) - first)
            bounds = (self.offsets[start : end + 1] - first).tolist()
            for before, after in pairwise(bounds):
                yield block[before + 8 : after].decode("utf-8", "replace")
            start = end

    def __repr__(self) -> str:
        shown = ", ".join(repr(text) for text in self[:3])
        return f"<StringArray of {self.count}: [{shown}{', ...' if self.count > 3 else ''}]>"


# Numeric and boolean arrays are NumPy arrays with the element type of the file.
Value = Union[bool, int, float, str, StringArray, "numpy.typing.NDArray[numpy.generic]"]


class Metadata(Mapping[str, Value]):
    """A mapping of keys to values in file order: bool, int, float, str, `StringArray` or a one-dimensional NumPy array.

    The getters raise `ModelError` for a missing key without a default and for a value that is not as described.
    """

    __slots__ = ("_types", "_values")

    def __init__(self, values: dict[str, Value], types: Mapping[str, str] | None = None) -> None:
        self._values = values
        self._types = types or {}

    def value_type(self, key: str) -> str | None:
        """The type of a value in the file: "uint32", "float64", "bool", "string", and of the elements of an array.

        None for a value that does not come from a file (an override). Raises KeyError for an unknown key.
        """
        return self._types.get(key) if key in self._values else self._types[key]

    def __getitem__(self, key: str) -> Value:
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __repr__(self) -> str:
        return f"<Metadata of {len(self)} keys>"

    def integer(self, key: str, default: int | None = None, *, minimum: int = 0, maximum: int = 2**31 - 1) -> int:
        """The integer `key`, of any width and signedness in the file.

        A missing key gives `default`, or an error if that is None.
        """
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self._unexpected(key, value, f"an integer from {minimum} to {maximum}")
        return value

    def number(
        self, key: str, default: float | None = None, *, minimum: float = -math.inf, above: float = -math.inf
    ) -> float:
        """The finite number `key` (a float or an integer), at least `minimum` and greater than `above`."""
        value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self._unexpected(key, value, "a finite number")
        if value < minimum or value <= above:
            limit = f"of at least {minimum}" if math.isfinite(minimum) else f"greater than {above}"
            raise self._unexpected(key, value, f"a number {limit}")
        return float(value)

    def scalar(self, key: str) -> str | int | float | bool | None:
        """The value of `key` if it is no array, otherwise None: to be compared, as arrays cannot be."""
        value = self.get(key)
        return value if isinstance(value, (str, int, float)) else None

    def text(self, key: str, default: str | None = None) -> str:
        """The string `key`."""
        value = self._required(key, default)
        if not isinstance(value, str):
            raise self._unexpected(key, value, "a string")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        """The boolean `key`; the integers 0 and 1 are accepted too."""
        value = self._required(key, default)
        if not isinstance(value, int) or value not in (0, 1):
            raise self._unexpected(key, value, "true or false")
        return bool(value)

    def strings(self, key: str) -> StringArray:
        """The array of strings `key`."""
        value = self._required(key, None)
        if not isinstance(value, StringArray):
            raise self._unexpected(key, value, "an array of strings")
        return value

    def integers(
        self, key: str, count: int, default: list[int] | None = None, *, minimum: int = 0, maximum: int = 2**31 - 1
    ) -> list[int]:
        """The `count` integers of `key`: an array of exactly that length, or one integer repeated `count` times."""
        value = self._required(key, default)
        expected = f"an integer from {minimum} to {maximum}, or {count} of them"
        if isinstance(value, int) and not isinstance(value, bool):
            values = [value] * count
        elif isinstance(value, list):
            values = value
        elif isinstance(value, (str, float, bool, StringArray)) or value.dtype.kind not in "iu":
            raise self._unexpected(key, value, expected)
        else:
            values = [int(element) for element in value]
        if len(values) != count or not all(minimum <= element <= maximum for element in values):
            raise self._unexpected(key, value, expected)
        return values

    def _required(self, key: str, default: Value | list[int] | None) -> Value | list[int]:
        value = self._values.get(key, default)
        if value is None:
            raise ModelError(f"metadata key {key!r} is missing; the file does not describe a complete model")
        return value

    def _unexpected(self, key: str, value: object, expected: str) -> ModelError:
        shown = repr(value)
        if len(shown) > 60:
            shown = shown[:57] + "..."
        return ModelError(f"metadata key {key!r} is {shown} ({type(value).__name__}); expected {expected}")
