"""A cache of embeddings of pictures: the most recently used ones, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from llamacpu.locks import ProcessLock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EmbeddingCache"]


class EmbeddingCache:
    """float32[rows, width] by digest. limit: bytes; arrays larger than that are not kept at all."""

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.nbytes: int = 0
        self._rows: OrderedDict[bytes, NDArray[np.float32]] = OrderedDict()
        self._lock = ProcessLock()

    def get(self, digest: bytes) -> NDArray[np.float32] | None:
        """The array stored under this digest; None if it is no longer there."""
        with self._lock:
            rows = self._rows.get(digest)
            if rows is not None:
                self._rows.move_to_end(digest)
            return rows

    def put(self, digest: bytes, rows: NDArray[np.float32]) -> None:
        """Store an array, and evict the least recently used ones down to the limit."""
        with self._lock:
            old = self._rows.pop(digest, None)
            self.nbytes -= 0 if old is None else old.nbytes
            if rows.nbytes > self.limit:
                return
            self._rows[digest] = rows
            self.nbytes += rows.nbytes
            while self.nbytes > self.limit:
                self.nbytes -= self._rows.popitem(last=False)[1].nbytes

    def __len__(self) -> int:
        return len(self._rows)
