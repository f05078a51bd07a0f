"""The prefix cache: keys and values of texts that were computed before, for prompts with the same prefix.

The texts are stored in lexicographic order of their tokens, so the one that shares the longest prefix with a prompt is
adjacent to the position where the prompt would be inserted. No stored text is a prefix of another one.
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

__all__ = ["Cached", "Kinds", "PrefixCache", "TokenKey", "key_of", "shared_tokens"]

TokenKey = bytes
"""Tokens as big-endian 32-bit integers, so that the bytes compare in the same order as the tokens."""
_TOKEN = 4


def key_of(tokens: TokenIds) -> TokenKey:
    """Return the key of a sequence of tokens."""
    return np.asarray(tokens, dtype=">u4").tobytes()


def shared_tokens(first: TokenKey, second: TokenKey) -> int:
    """Return the length of the longest common prefix, in tokens."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length // _TOKEN
    one = np.frombuffer(first[:length], dtype=np.uint32)
    other = np.frombuffer(second[:length], dtype=np.uint32)
    return int(np.argmax(one != other))


class Ordered:
    """A sorted list of keys, none of which is a prefix of another."""

    def __init__(self) -> None:
        self._keys: list[TokenKey] = []

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[TokenKey]:
        return iter(self._keys)

    def nearest(self, key: TokenKey) -> tuple[TokenKey, int] | None:
        """Return the key that shares the longest prefix with this one, and its length in tokens; None if none does."""
        place = bisect_left(self._keys, key)
        found = [(shared_tokens(near, key), near) for near in self._keys[max(place - 1, 0) : place + 1]]
        length, near = max(found, default=(0, b""))
        return (near, length) if length else None

    def covers(self, key: TokenKey) -> bool:
        """Return whether the key equals a stored key or is a prefix of one."""
        place = bisect_left(self._keys, key)
        return place < len(self._keys) and self._keys[place].startswith(key)

    def add(self, key: TokenKey) -> TokenKey | None:
        """Add a key that is not covered; return the key that is a prefix of it and was removed, None if none was."""
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


class Kinds:
    """Sorted keys by what computed the texts: the fingerprints of a model and its adapters."""

    def __init__(self) -> None:
        self._orders: dict[str, Ordered] = {}

    def of(self, kind: str) -> Ordered:
        """Return the keys of one kind."""
        return self._orders.setdefault(kind, Ordered())

    def items(self) -> list[tuple[str, Ordered]]:
        """Return all kinds with their keys."""
        return list(self._orders.items())

    def remove(self, kind: str, key: TokenKey) -> None:
        """Remove a key, and its kind with the last one."""
        order = self.of(kind)
        order.remove(key)
        if not len(order):
            del self._orders[kind]


class Cached(NamedTuple):
    """The keys and values of a text."""

    native: SessionLike
    pages: PageList


class PrefixCache:
    """Sessions of finished requests, least recently used first. Used under the scheduler's lock.

    A text is found only by requests of the same `kind`: the fingerprint of the model and its adapters.
    """

    def __init__(self) -> None:
        self._kinds = Kinds()
        self._entries: OrderedDict[tuple[str, TokenKey], Cached] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, kind: str, key: TokenKey) -> tuple[Cached, int] | None:
        """Return the text that shares the longest prefix with `key`, and its length in tokens; counts as a use."""
        nearest = self._kinds.of(kind).nearest(key)
        if nearest is None:
            return None
        self._entries.move_to_end((kind, nearest[0]))
        return self._entries[kind, nearest[0]], nearest[1]

    def length(self, kind: str, key: TokenKey) -> int:
        """Return the number of tokens that `find` would find."""
        nearest = self._kinds.of(kind).nearest(key)
        return nearest[1] if nearest else 0

    def add(self, kind: str, key: TokenKey, cached: Cached) -> None:
        """Add a session, replacing an entry that is a prefix of it."""
        order = self._kinds.of(kind)
        if order.covers(key):
            return
        shorter = order.add(key)
        if shorter is not None:
            del self._entries[kind, shorter]
        self._entries[kind, key] = cached

    def evict(self) -> bool:
        """Drop the least recently used text; return False if there is none."""
        if not self._entries:
            return False
        (kind, key), _ = self._entries.popitem(last=False)
        self._kinds.remove(kind, key)
        return True

    def clear(self) -> None:
        """Drop everything."""
        self._kinds = Kinds()
        self._entries.clear()

    def recent(self) -> Iterable[tuple[tuple[str, TokenKey], Cached]]:
        """Return the texts, most recently used first."""
        return list(reversed(self._entries.items()))
