"""Packs samples into rows of a fixed number of tokens, so that little of a row stays empty.

Samples in one row do not see each other: a row states where each begins, and attention stays within these borders.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from llamacpu.tools.train.order import permutation
from llamacpu.tools.train.samples import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Row", "pack", "packed_rows"]


class Row(NamedTuple):
    """Samples one after the other.

    tokens    int32[n]
    segments  int32[samples + 1]: where each sample begins, and n
    targets   int32[n]: the token to predict at each place, or -1 where the loss does not count it
    """

    tokens: NDArray[np.int32]
    segments: NDArray[np.int32]
    targets: NDArray[np.int32]

    @property
    def counted(self) -> int:
        """Number of tokens that the loss counts."""
        return int(np.count_nonzero(self.targets >= 0))


def pack(lengths: Sequence[int], capacity: int, seed: int) -> list[list[int]]:
    """Distribute samples over rows of at most `capacity` tokens: best fit, the longest samples first.

    Returns the indices of the samples of each row. Samples of one length are taken in an order drawn from the seed, so
    that neighbours in the data need not become neighbours in a row. Raises ValueError for a sample without tokens, or
    with more than `capacity`.
    """
    order = permutation(seed, "packing", 0, len(lengths))
    rows: list[list[int]] = []
    # The rows with each number of free tokens, and a bit for each such number: the fullest row with enough room is the
    # lowest bit from the length on.
    by_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for index in sorted(order.tolist(), key=lambda index: -lengths[index]):
        length = lengths[index]
        if not 0 < length <= capacity:
            raise ValueError(f"a sample has {length} tokens; expected 1 to {capacity}")
        fitting = rooms >> length
        if fitting:
            room = length + (fitting & -fitting).bit_length() - 1
            row = by_room[room].pop()
            if not by_room[room]:
                rooms &= ~(1 << room)
        else:
            row, room = len(rows), capacity
            rows.append([])
        rows[row].append(index)
        by_room[room - length].append(row)
        rooms |= 1 << (room - length)
    return rows


def packed_rows(samples: Sequence[Sample], capacity: int, seed: int) -> list[Row]:
    """The rows of samples, packed."""
    return [
        _row([samples[index] for index in indices])
        for indices in pack([len(sample.tokens) for sample in samples], capacity, seed)
    ]


def _row(samples: Sequence[Sample]) -> Row:
    ends = np.cumsum([0, *(len(sample.tokens) for sample in samples)])
    return Row(
        np.concatenate([sample.tokens for sample in samples]),
        ends.astype(np.int32),
        np.concatenate([sample.targets for sample in samples]),
    )
