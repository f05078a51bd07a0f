"""What one rendering of a chat template may cost, and the account that holds it to that.

Every value that a template can make stays below a size, so that one operation of the interpreter takes milliseconds at
most; between operations the account looks at the number of steps and at the processor time. Together they bound time
and memory of any template, whatever it does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from llamacpu.chat.traced import has_data
from llamacpu.errors import TemplateError

T = TypeVar("T")

# What an element of a list or dict is counted as, beside its own size: about what the interpreter needs for it.
ELEMENT_COST = 16
# A number cannot be larger than this many bits: chat templates count messages, not atoms.
LARGEST_NUMBER_BITS = 4096


@dataclass(frozen=True)
class Limits:
    """Bounds of one rendering; sizes in bytes, to which a multiple of the size of the messages is added."""

    seconds: float = 1.0
    """Processor time of the rendering thread."""
    steps: int = 5_000_000
    """Loop iterations, calls, operators and filters."""
    value: int = 2 << 20
    """Largest single value (a string, or a list with everything in it); four times the size of the input is added."""
    total: int = 64 << 20
    """All values and output that are made, together; 64 times the size of the input is added."""
    depth: int = 64
    """Macros and recursive loops inside each other."""
    source: int = 64 << 10
    """Characters of the template itself."""


class TemplateLimit(TemplateError):  # noqa: N818 (the name says what was reached)
    """The template asks for more than a rendering may cost."""


class Budget:
    """The account of one rendering."""

    __slots__ = ("_data", "_deadline", "_kept", "_sizes", "depth", "limits", "steps", "total", "tracking", "value")

    def __init__(self, limits: Limits, input_size: int, tracking: bool) -> None:
        self.limits: Limits = limits
        self.tracking: bool = tracking
        self.steps: int = limits.steps
        self.value: int = limits.value + 4 * input_size
        self.total: int = limits.total + 64 * input_size
        self.depth: int = 0
        self._deadline = time.thread_time() + limits.seconds
        # Sizes of lists and dicts by identity. A template cannot change them, and `_kept` keeps the identity valid.
        self._sizes: dict[int, int] = {}
        self._data: dict[int, bool] = {}
        self._kept: list[object] = []

    def tick(self) -> bool:
        """Count one step; true, so that it can stand in a condition."""
        self.steps -= 1
        if self.steps < 0:
            raise TemplateLimit(f"the chat template takes more than {self.limits.steps} steps; it may not end at all")
        if not self.steps & 15 and time.thread_time() > self._deadline:
            raise TemplateLimit(
                f"the chat template takes more than {self.limits.seconds} seconds; it may not end at all"
            )
        return True

    def expect(self, size: int) -> None:
        """Refuse a value of `size` bytes before it is made."""
        if size > self.value:
            raise TemplateLimit(f"the chat template makes a value of {size} bytes, at most {self.value} are allowed")

    def spend(self, size: int) -> None:
        """Count `size` bytes of values or output that were made."""
        self.total -= size
        if self.total < 0:
            raise TemplateLimit("the chat template makes more text than the messages can justify")

    def made(self, value: T) -> T:
        """Count a new value, and refuse it if it is too large.

        What a list or dict holds was counted when it was made: only its own elements are paid for.
        """
        size = self.size(value)
        self.expect(size)
        own = ELEMENT_COST * (1 + len(value)) if isinstance(value, (list, tuple, dict, set, frozenset)) else size
        self.spend(own)
        return value

    def size(self, value: object) -> int:
        """Bytes of `value` written out: shared parts are counted each time they occur."""
        if isinstance(value, str):
            return len(value) if value.isascii() else 4 * len(value)
        if not isinstance(value, (list, tuple, dict, set, frozenset)):
            if isinstance(value, int) and value.bit_length() > LARGEST_NUMBER_BITS:
                raise TemplateLimit(f"the chat template makes a number of more than {LARGEST_NUMBER_BITS} bits")
            return 8
        known = self._sizes.get(id(value))
        if known is not None:
            return known
        size = ELEMENT_COST * (1 + len(value))
        self.expect(size)
        for item in value:
            size += self.size(item)
            if isinstance(value, dict):
                size += ELEMENT_COST + self.size(value[item])
        self._sizes[id(value)] = size
        self._kept.append(value)
        return size

    def has_data(self, value: object) -> bool:
        """Whether text from the caller is anywhere in `value`."""
        if not self.tracking:
            return False
        if not isinstance(value, (list, tuple, dict, set, frozenset)):
            return has_data(value)
        known = self._data.get(id(value))
        if known is None:
            known = any(
                self.has_data(item) or (isinstance(value, Mapping) and self.has_data(value[item])) for item in value
            )
            self._data[id(value)] = known
            self._kept.append(value)
        return known
