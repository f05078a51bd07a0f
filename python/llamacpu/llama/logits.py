"""The logits that `Llama.eval` keeps, and their log-probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.float32]


class KeptLogits:
    """Rows of logits, one per token, in one growing array."""

    def __init__(self, vocabulary: int) -> None:
        self._array: Rows = np.zeros((0, vocabulary), dtype=np.float32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> Rows:
        """The logits, float32[rows, vocabulary]: a view of the array, not a copy."""
        return self._array[: self._count]

    def replace(self, rows: Rows) -> None:
        """Keep only these rows."""
        self._array, self._count = rows, len(rows)

    def append(self, rows: Rows) -> None:
        """Append these rows."""
        needed = self._count + len(rows)
        if needed > len(self._array):
            larger = np.empty((max(needed, 2 * self._count), rows.shape[1]), dtype=np.float32)
            larger[: self._count] = self.rows
            self._array = larger
        self._array[self._count : needed] = rows
        self._count = needed

    def truncate(self, count: int) -> None:
        """Keep only the first `count` rows."""
        self._count = min(self._count, count)


def log_probabilities(logits: npt.ArrayLike, axis: int = -1) -> Rows:
    """Return the log-probabilities of logits (their log-softmax along `axis`)."""
    values = np.asarray(logits, dtype=np.single)
    largest = values.max(axis=axis, keepdims=True)
    shifted = values - np.where(np.isfinite(largest), largest, 0)
    with np.errstate(divide="ignore"):
        return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)), dtype=np.single)
