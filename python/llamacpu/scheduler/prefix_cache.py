"""Keys and values of texts that were computed before, for prompts that begin like them.

The texts are kept in lexicographic order of their tokens: the one that shares the longest beginning with a prompt is
then a neighbour of the place where the prompt would stand. No text is kept that is the beginning of another one.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import SessionLike, TokenIds
    from llamacpu.scheduler.pages import PageList

__all__ = ["Cached", "PrefixCache", "TokenKey", "key_of", "shared_tokens"]

TokenKey = bytes
"""Tokens as big-endian 32-bit numbers: bytes compare as the tokens do."""
_TOKEN = 4


def key_of(tokens: TokenIds) -> TokenKey:
    """The key of tokens."""
    return np.asarray(tokens, dtype=">u4").tobytes()


def shared_tokens(first: TokenKey, second: TokenKey) -> int:
    """Length of the longest common beginning, in tokens."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length // _TOKEN
    one = np.frombuffer(first[:length], dtype=np.uint32)
    other = np.frombuffer(second[:length], dtype=np.uint32)
    return int(np.argmax(one != other))


class Ordered:
    """Keys in order, none of them the beginning of another."""

    def __init__(self) -> None:
        self._keys: list[TokenKey] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[TokenKey]:
        return iter(self._keys)

    def nearest(self, key: TokenKey) -> tuple[TokenKey, int] | None:
        """The key that shares the longest beginning with this one, and how many tokens that is; None if nothing."""
        place = bisect_left(self._keys, key)
        found = [(shared_tokens(near, key), near) for near in self._keys[max(place - 1, 0) : place + 1]]
        length, near = max(found, default=(0, b""))
        return (near, length) if length else None

    def covers(self, key: TokenKey) -> bool:
        """Whether the key is the beginning of one that there is, or one itself."""
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place].startswith(key)

    def add(self, key: TokenKey) -> TokenKey | None:
        """Add a key that is not covered; returns the one that was its beginning, and is removed."""
        place = bisect_left(self._keys, key)
        shorter = None
        if place and key.startswith(self._keys[place - 1]):
            shorter = self._keys.pop(place - 1)
        insort(self._keys, key)
        return shorter

    def remove(self, key: TokenKey) -> None:
        """Remove a key."""
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            del self._keys[place]


class Cached(NamedTuple):
    """The keys and values of a text."""

    native: SessionLike
    pages: PageList


class PrefixCache:
    """Sessions of finished requests, least recently used first. Used under the scheduler's lock."""

    def __init__(self) -> None:
        self._order = Ordered()
        self._entries: OrderedDict[TokenKey, Cached] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: TokenKey) -> tuple[Cached, int] | None:
        """The text that shares the longest beginning with `key`, and how many tokens that is; it counts as used."""
        nearest = self._order.nearest(key)
        if nearest is None:
            return None
        self._entries.move_to_end(nearest[0])
        return self._entries[nearest[0]], nearest[1]

    def length(self, key: TokenKey) -> int:
        """How many tokens `find` would find."""
        nearest = self._order.nearest(key)
        return nearest[1] if nearest else 0

    def add(self, key: TokenKey, cached: Cached) -> None:
        """Keep a session; what it begins with is not kept beside it."""
        if self._order.covers(key):
            return
        shorter = self._order.add(key)
        if shorter is not None:
            del self._entries[shorter]
        self._entries[key] = cached

    def evict(self) -> bool:
        """Drop the text that was not used for the longest time; False if there is none."""
        if not self._entries:
            return False
        key, _ = self._entries.popitem(last=False)
        self._order.remove(key)
        return True

    def clear(self) -> None:
        """Drop everything."""
        self._order = Ordered()
        self._entries.clear()

    def recent(self) -> Iterable[tuple[TokenKey, Cached]]:
        """The texts, most recently used first."""
        return list(reversed(self._entries.items()))
