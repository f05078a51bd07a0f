"""The limits on the cost of rendering a chat template, and the budget that enforces them.

Every value that a template makes is limited in size, so that one operation of the interpreter takes milliseconds at
most; between operations the budget checks the number of steps and the processor time. Together these bound the time
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

# Bytes charged for an element of a list or dict in addition to its own size: roughly the interpreter's overhead.
ELEMENT_COST = 16
# The largest size of an integer, in bits: chat templates only count messages.
LARGEST_NUMBER_BITS = 4096


@dataclass(frozen=True)
class Limits:
    """Limits of one rendering; sizes are in bytes, and a multiple of the input size is added to them."""

    seconds: float = 1.0
    """Processor time of the rendering thread."""
    steps: int = 5_000_000
    """Loop iterations, calls, operators and filters."""
    value: int = 2 << 20
    """Largest single value (a string, or a list with all its contents); four times the size of the input is added."""
    total: int = 64 << 20
    """Total of all values and output; 64 times the size of the input is added."""
    depth: int = 64
    """Nesting depth of macros and recursive loops."""
    source: int = 64 << 10
    """Length of the template itself, in characters."""


class TemplateLimit(TemplateError):  # noqa: N818 (the name says what was reached)
    """The template exceeds a limit of the rendering."""


class Budget:
    """The budget of one rendering: what it may still spend."""

    __slots__ = ("_data", "_deadline", "_kept", "_sizes", "depth", "limits", "steps", "total", "tracking", "value")

    def __init__(self, limits: Limits, input_size: int, tracking: bool) -> None:
        self.limits: Limits = limits
        self.tracking: bool = tracking
        self.steps: int = limits.steps
        self.value: int = limits.value + 4 * input_size
        self.total: int = limits.total + 64 * input_size
        self.depth: int = 0
        self._deadline = time.thread_time() + limits.seconds
        # Sizes of lists and dicts by `id`. A template cannot change them, and `_kept` keeps each `id` valid.
        self._sizes: dict[int, int] = {}
        self._data: dict[int, bool] = {}
        self._kept: list[object] = []

    def tick(self) -> bool:
        """Count one step; returns True, so that it can be used in a condition.

        Raises TemplateLimit if the steps or the processor time are used up.
        """
        self.steps -= 1
        if self.steps < 0:
            raise TemplateLimit(f"the chat template takes more than {self.limits.steps} steps; it may not end at all")
        if not self.steps & 15 and time.thread_time() > self._deadline:
            raise TemplateLimit(
                f"the chat template takes more than {self.limits.seconds} seconds; it may not end at all"
            )
        return True

    def expect(self, size: int) -> None:
        """Raise TemplateLimit if a value of `size` bytes, not yet made, would be too large."""
        if size > self.value:
            raise TemplateLimit(f"the chat template makes a value of {size} bytes, at most {self.value} are allowed")

    def spend(self, size: int) -> None:
        """Count `size` bytes of new values or output; raises TemplateLimit if the total is exceeded."""
        self.total -= size
        if self.total < 0:
            raise TemplateLimit("the chat template makes more text than the messages can justify")

    def made(self, value: T) -> T:
        """Count a new value and return it; raises TemplateLimit if it is too large.

        The contents of a list or dict were counted when they were made, so only its own slots are charged.
        """
        size = self.size(value)
        self.expect(size)
        own = ELEMENT_COST * (1 + len(value)) if isinstance(value, (list, tuple, dict, set, frozenset)) else size
        self.spend(own)
        return value

    def size(self, value: object) -> int:
        """The size of `value` in bytes if written out: shared parts count each time they occur."""
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
        """Whether `value` contains any text from the caller."""
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
