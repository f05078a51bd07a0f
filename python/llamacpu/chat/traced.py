"""Strings that track which of their characters came from the caller.

A chat template mixes its own text, where ``<|eot_id|>`` means "end of turn", with text from messages, where the same
characters are plain text. `Traced` is a ``str`` that carries one byte per character, 1 for the caller's data and 0 for
the template's text, through the string operations that templates use. It compares and hashes like the plain string, so
a template renders the same with it. An operation whose result cannot be traced character by character marks the whole
result as data, which is then tokenized as text, never as a control token.
"""

from __future__ import annotations

import operator
import re
import string
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, SupportsIndex, cast

_PERCENT = re.compile(
    r"%(?:\((?P<key>[^)]*)\))?[#0\- +]*(?P<width>\*|\d+)?(?:\.(?:\*|\d+))?[hlL]?(?P<type>.)", re.DOTALL
)


def origin_of(value: str) -> bytes:
    """One byte per character of `value`: 1 if it came from the caller, 0 if it is the template's own."""
    return value.origin if isinstance(value, Traced) else bytes(len(value))


def has_data(value: object) -> bool:
    """Whether `value` is a traced string with at least one character of data."""
    return isinstance(value, Traced) and 1 in value.origin


def concatenate(parts: Iterable[str]) -> str:
    """``"".join(parts)``, traced if any part is."""
    parts = list(parts)
    if not any(isinstance(part, Traced) for part in parts):
        return "".join(parts)
    return Traced("".join(map(str.__str__, parts)), b"".join(map(origin_of, parts)))


class Traced(str):
    """A string with the origin of each character; see the module docstring.

    `origin` has one byte per character; if it is None, every character is data.
    """

    __slots__ = ("origin",)
    origin: bytes

    def __new__(cls, value: str, origin: bytes | None = None) -> Traced:
        self = super().__new__(cls, value)
        self.origin = b"\x01" * len(value) if origin is None else origin
        return self

    def _cut(self, start: int, stop: int) -> Traced:
        return Traced(str.__getitem__(self, slice(start, stop)), self.origin[start:stop])

    def _whole(self, value: str, *others: object) -> Traced:
        """`value` with this string's origin if the lengths agree and `others` have no data; else one origin for all."""
        if len(value) == len(self.origin) and not any(has_data(other) for other in others):
            return Traced(value, self.origin)
        data = has_data(self) or any(has_data(other) for other in others)
        return Traced(value, (b"\x01" if data else b"\x00") * len(value))

    def _pieces(self, pieces: Iterable[str], gap: int = 0) -> list[Traced]:
        """Trace `pieces`, which occur in this string in order and at least `gap` characters apart."""
        found, position = [], 0
        for piece in pieces:
            start = str.find(self, piece, position)
            found.append(self._cut(start, start + len(piece)))
            position = start + len(piece) + gap
        return found

    def __str__(self) -> str:
        return self

    def __reduce__(self) -> tuple[type[Traced], tuple[str, bytes]]:
        return Traced, (str.__str__(self), self.origin)

    def __add__(self, other: str) -> Traced:
        if not isinstance(other, str):
            return NotImplemented
        return Traced(str.__add__(self, other), self.origin + origin_of(other))

    def __radd__(self, other: str) -> Traced:
        if not isinstance(other, str):
            return NotImplemented
        return Traced(str.__add__(other, self), origin_of(other) + self.origin)

    def __mul__(self, count: SupportsIndex) -> Traced:
        return Traced(str.__mul__(self, count), self.origin * operator.index(count))

    __rmul__ = __mul__

    def __getitem__(self, index: SupportsIndex | slice) -> Traced:
        value = str.__getitem__(self, index)
        return Traced(value, self.origin[index] if isinstance(index, slice) else bytes((self.origin[index],)))

    def __iter__(self) -> Iterator[str]:
        for index in range(len(self)):
            yield self[index]

    def __mod__(self, values: Any) -> Traced:
        """printf-style formatting, one conversion at a time; the literal text keeps its origin."""
        parts: list[str] = []
        position, used = 0, 0
        arguments = values if isinstance(values, tuple) else (values,)
        for match in _PERCENT.finditer(self):
            parts.append(self._cut(position, match.start()))
            position = match.end()
            directive = str.__str__(match.group())
            if match["type"] == "%":
                parts.append("%")
            elif match["key"] is not None:
                value = values[match["key"]]
                parts.append(_like(directive % {match["key"]: value}, value))
            else:
                stars = directive.count("*")
                taken = arguments[used : used + stars + 1]
                used += stars + 1
                parts.append(_like(directive % taken, *taken))
        parts.append(self._cut(position, len(self)))
        # Python's own formatting checks for missing, surplus and wrongly typed arguments.
        expected = str.__mod__(self, values)
        result = concatenate(parts)
        return (
            Traced(expected, result.origin) if isinstance(result, Traced) and result == expected else Traced(expected)
        )

    def format(self, *args: object, **kwargs: object) -> Traced:
        return self.format_with(string.Formatter(), args, kwargs)

    def format_map(self, mapping: Any) -> Traced:
        return self.format_with(string.Formatter(), (), mapping)

    def format_with(self, formatter: string.Formatter, args: Iterable[object], kwargs: Mapping[str, object]) -> Traced:
        """``str.format`` through `formatter`.

        The literal text keeps its origin if the format string has none of the caller's data; otherwise the whole
        result is data.
        """
        arguments = tuple(args)
        plain = str.__str__(self)
        expected = formatter.vformat(plain, arguments, kwargs)
        if has_data(self):
            return Traced(expected)
        parts: list[str] = []
        automatic = 0
        for literal, field, specification, conversion in formatter.parse(plain):
            parts.append(Traced(literal, bytes(len(literal))))
            if field is None:
                continue
            if "{" in (specification or ""):
                return Traced(expected)
            name = field
            if not re.match(r"[^.\[]", field):
                # An automatically numbered field gets an explicit number, so that it can be formatted on its own.
                name, automatic = f"{automatic}{field}", automatic + 1
            one = "{" + name + (f"!{conversion}" if conversion else "") + ":" + (specification or "") + "}"
            value = formatter.get_field(name, arguments, kwargs)[0]
            parts.append(_like(formatter.vformat(one, arguments, kwargs), value))
        result = concatenate(parts)
        return Traced(expected, origin_of(result)) if result == expected else Traced(expected)

    def join(self, parts: Iterable[str]) -> Traced:
        pieces: list[str] = []
        for index, part in enumerate(parts):
            if not isinstance(part, str):
                raise TypeError(f"sequence item {index}: expected str instance, {type(part).__name__} found")
            if index:
                pieces.append(self)
            pieces.append(part)
        return Traced("".join(map(str.__str__, pieces)), b"".join(map(origin_of, pieces)))

    def strip(self, chars: str | None = None) -> Traced:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> Traced:
        return self._cut(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None) -> Traced:
        return self._cut(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str, /) -> Traced:
        return self._cut(len(prefix) if str.startswith(self, prefix) else 0, len(self))

    def removesuffix(self, suffix: str, /) -> Traced:
        return self._cut(0, len(str.removesuffix(self, suffix)))

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        return cast(list[str], self._pieces(str.split(self, sep, maxsplit), len(sep or "")))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[str]:
        # Only the leftmost piece can contain separators, so the pieces are located from the right.
        found, end = [], len(self)
        for piece in reversed(str.rsplit(self, sep, maxsplit)):
            start = str.rfind(self, piece, 0, end)
            found.append(self._cut(start, start + len(piece)))
            end = start - len(sep or "")
        return cast(list[str], found[::-1])

    def splitlines(self, keepends: bool = False) -> list[str]:
        whole = self._pieces(str.splitlines(self, True))
        if keepends:
            return cast(list[str], whole)
        return [line._cut(0, len(bare)) for line, bare in zip(whole, str.splitlines(self), strict=True)]

    def partition(self, sep: str, /) -> tuple[str, str, str]:
        first, middle, _ = str.partition(self, sep)
        cut = len(first) + len(middle)
        return self._cut(0, len(first)), self._cut(len(first), cut), self._cut(cut, len(self))

    def rpartition(self, sep: str, /) -> tuple[str, str, str]:
        first, middle, _ = str.rpartition(self, sep)
        cut = len(first) + len(middle)
        return self._cut(0, len(first)), self._cut(len(first), cut), self._cut(cut, len(self))

    def replace(self, old: str, new: str, count: SupportsIndex = -1, /) -> Traced:
        if not old:
            return self._whole(str.replace(self, old, new, count), new)
        pieces = str.split(self, old, count)
        return Traced(new, origin_of(new)).join(self._pieces(pieces, len(old)))

    def _padded(self, plain: str, fill: str) -> Traced:
        left = 0 if len(plain) == len(self) else plain.find(str.__str__(self))
        right = len(plain) - left - len(self)
        edge = b"\x01" if has_data(fill) else b"\x00"
        return Traced(plain, edge * left + self.origin + edge * right)

    def center(self, width: SupportsIndex, fillchar: str = " ", /) -> Traced:
        plain = str.center(self, width, fillchar)
        return self._padded(plain, fillchar)

    def ljust(self, width: SupportsIndex, fillchar: str = " ", /) -> Traced:
        plain = str.ljust(self, width, fillchar)
        return Traced(plain, self.origin + origin_of(fillchar) * (len(plain) - len(self)))

    def rjust(self, width: SupportsIndex, fillchar: str = " ", /) -> Traced:
        plain = str.rjust(self, width, fillchar)
        return Traced(plain, origin_of(fillchar) * (len(plain) - len(self)) + self.origin)


def _like(result: str, *sources: object) -> Traced:
    return Traced(result, (b"\x01" if any(_any_data(source) for source in sources) else b"\x00") * len(result))


def _any_data(value: object) -> bool:
    if isinstance(value, Mapping):
        return any(_any_data(key) or _any_data(item) for key, item in value.items())
    if isinstance(value, (list, tuple, set, frozenset)):
        return any(_any_data(item) for item in value)
    return has_data(value)


def _follow_whole(name: str) -> Callable[..., Traced]:
    plain = getattr(str, name)

    def method(self: Traced, *args: Any, **kwargs: Any) -> Traced:
        return self._whole(plain(self, *args, **kwargs), *args)

    method.__name__ = name
    method.__doc__ = f"``str.{name}``, traced."
    return method


for _name in ("upper", "lower", "title", "capitalize", "swapcase", "casefold", "zfill", "expandtabs", "translate"):
    setattr(Traced, _name, _follow_whole(_name))
