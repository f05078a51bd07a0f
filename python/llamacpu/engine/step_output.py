"""The results of a step: rows of logits and hidden states, split by item."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import Logits

__all__ = ["ends_of", "places_of", "split"]


def ends_of(counts: Sequence[int]) -> list[int]:
    """Where each of several runs of rows begins, and where the last one ends."""
    ends = [0]
    for count in counts:
        ends.append(ends[-1] + count)
    return ends


def split(rows: NDArray[np.float32], counts: Sequence[int], logits: Logits) -> Any:
    """The rows of logits of each item; `counts` gives the number of tokens per item."""
    if logits == "none":
        return [None] * len(counts)
    if logits == "last":
        return list(rows)
    return [rows[start:end] for start, end in pairwise(ends_of(counts))]


def places_of(layers: Sequence[int], count: int) -> list[int]:
    """Layer indices as the native model counts them; negative ones count from the end.

    Raises ValueError for no layers, and for one that is out of range or named twice.
    """
    places = [operator.index(layer) for layer in layers]
    if not places:
        raise ValueError("no layers: expected at least one; -1 is the last norm")
    for place in places:
        if not -count <= place < count:
            raise ValueError(f"there is no layer {place}: expected 0 to {count - 1}, or -{count} to -1 from the end")
    places = [place % count for place in places]
    if len(set(places)) != len(places):
        raise ValueError(f"a layer is named twice in {list(layers)}; expected each once")
    return places
