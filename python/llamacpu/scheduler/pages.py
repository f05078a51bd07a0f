"""Counting pages of keys and values: each once, however many sessions share it.

The states of recurrent layers count as some pages more, which a session has as soon as it has tokens.

Native sessions count references to their pages and copy a shared one before they write to it. This module mirrors that
count for the memory budget: each session has a list of `Page` objects, which forks share.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain

from llamacpu.engine.interfaces import PAGE_TOKENS

__all__ = ["Page", "PageCounter", "PageList"]


class Page:
    """One page, which counts as long as it is referenced."""

    __slots__ = ("_freed",)

    def __init__(self, freed: deque[None]) -> None:
        self._freed = freed

    def __del__(self) -> None:
        # May run in any thread at any point: appending needs no lock.
        self._freed.append(None)


class PageCounter:
    """Counts the existing pages. Pages are created under the owner's lock."""

    def __init__(self, page_bytes: int, state_bytes: int = 0) -> None:
        self.page_bytes: int = max(page_bytes, 1)
        self.state_pages: int = -(-state_bytes // self.page_bytes)
        self._count = 0
        self._freed: deque[None] = deque()

    def page(self) -> Page:
        """Create a page."""
        self._count += 1
        return Page(self._freed)

    @property
    def pages(self) -> int:
        """The number of pages in use."""
        while self._freed:
            self._freed.popleft()
            self._count -= 1
        return self._count

    @property
    def nbytes(self) -> int:
        """The bytes of these pages."""
        return self.pages * self.page_bytes


class PageList:
    """The pages of one session."""

    def __init__(self, counter: PageCounter) -> None:
        self._counter = counter
        self._pages: list[Page] = []
        self._states: list[Page] = []
        # Whether the last page may be shared with another session.
        self._shared = False

    def __len__(self) -> int:
        return len(self._pages)

    def __iter__(self) -> Iterator[Page]:
        return chain(self._pages, self._states)

    @property
    def page_bytes(self) -> int:
        """The bytes of one page."""
        return self._counter.page_bytes

    def missing(self, position: int, count: int) -> int:
        """Return how many more pages a session at `position` needs for `count` more tokens."""
        copied = int(self._shared and position % PAGE_TOKENS != 0)
        if self._shared or not self._states:
            copied += self._counter.state_pages
        return max(-(-(position + count) // PAGE_TOKENS) - len(self._pages), 0) + copied

    def grow(self, position: int, count: int) -> None:
        """Add the pages for `count` more tokens of a session at `position`."""
        if self._shared and position % PAGE_TOKENS and self._pages:
            self._pages[-1] = self._counter.page()
        if self._shared or not self._states:
            self._states = [self._counter.page() for _ in range(self._counter.state_pages)]
        self._shared = False
        while len(self._pages) * PAGE_TOKENS < position + count:
            self._pages.append(self._counter.page())

    def truncate(self, tokens: int) -> None:
        """Drop the pages beyond the first `tokens` tokens."""
        keep = -(-tokens // PAGE_TOKENS)
        if keep < len(self._pages):
            del self._pages[keep:]
            self._shared = True
        if not tokens:
            self._states = []

    def fork(self) -> PageList:
        """Return the pages of a fork of the session."""
        other = PageList(self._counter)
        other._pages, other._states = list(self._pages), list(self._states)
        self._shared = other._shared = True
        return other
