"""A queue from the thread that writes an answer to its reader, which is a thread or a task of an event loop."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

if TYPE_CHECKING:
    import asyncio

__all__ = ["Channel"]

T = TypeVar("T")
Until = Literal["item", "end"]


class Channel(Generic[T]):
    """An ordered stream of items that ends. `put` never blocks: the items are small (pieces of text)."""

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.RLock())
        self._items: deque[T] = deque()
        self._ended = False
        self._tasks: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None], Until]] = []
        self._threads: list[Until] = []

    @property
    def ended(self) -> bool:
        """Whether nothing more will be put."""
        return self._ended

    def put(self, item: T) -> None:
        """Add an item."""
        with self._changed:
            self._items.append(item)
            self._wake("item")

    def end(self) -> None:
        """End the stream: no more items will be put."""
        with self._changed:
            self._ended = True
            self._wake("end")

    def forked(self) -> None:
        """End the stream in a forked child, where the thread that held the lock does not exist."""
        self._changed = threading.Condition(threading.RLock())
        self._tasks, self._threads, self._ended = [], [], True

    def take(self) -> T | None:
        """Take the next item if there is one, else return None; does not wait."""
        with self._changed:
            return self._items.popleft() if self._items else None

    def wait(self, until: Until = "item", timeout: float | None = None) -> bool:
        """Wait for an item or for the end; return False if `timeout` seconds passed first."""
        with self._changed:
            self._threads.append(until)
            try:
                return self._changed.wait_for(lambda: self._there(until), timeout)
            finally:
                self._threads.remove(until)

    async def wait_async(self, until: Until = "item") -> None:
        """Wait for an item or for the end without blocking the event loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        while True:
            with self._changed:
                if self._there(until):
                    return
                entry = loop, loop.create_future(), until
                self._tasks.append(entry)
            try:
                await entry[1]
            finally:
                with self._changed:
                    if entry in self._tasks:
                        self._tasks.remove(entry)

    def _there(self, until: Until) -> bool:
        return self._ended or (until == "item" and bool(self._items))

    def _wake(self, what: Until) -> None:
        if self._threads and (what == "end" or "item" in self._threads):
            self._changed.notify_all()
        for entry in [entry for entry in self._tasks if what == "end" or entry[2] == "item"]:
            self._tasks.remove(entry)
            loop, future, _ = entry
            try:
                loop.call_soon_threadsafe(_resolve, future)
            except RuntimeError:
                continue  # the loop is closed: nobody is waiting any more


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
