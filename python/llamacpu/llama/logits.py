"""The logits that `Llama.eval` keeps."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]


class KeptLogits:
    """Rows of logits, one for each token, in one array that grows."""

    def __init__(self, vocabulary: int) -> None:
        self._array: Rows = np.zeros((0, vocabulary), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Rows:
        """float32[rows, vocabulary]: the array itself, not a copy of it."""
        return self._array[: self._count]

    def replace(self, rows: Rows) -> None:
        """Keep these rows alone."""
        self._array, self._count = rows, len(rows)

    def append(self, rows: Rows) -> None:
        """Keep these rows behind the others."""
        needed = self._count + len(rows)
        if needed > len(self._array):
            larger = np.empty((max(needed, 2 * self._count), rows.shape[1]), dtype=np.float32)
            larger[: self._count] = self.rows
            self._array = larger
        self._array[self._count : needed] = rows
        self._count = needed

    def truncate(self, count: int) -> None:
        """Keep the first rows alone."""
        self._count = min(self._count, count)
