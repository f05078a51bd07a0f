"""Random orders that are the same on every machine, in every version of NumPy, and in a resumed run.

They are made from the raw numbers of PCG64, whose stream NumPy guarantees, as a function of a seed and of what they are
for: nothing but the number of the step has to be remembered to continue them.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["permutation"]


def _raw(seed: int, purpose: str, number: int, count: int) -> NDArray[np.uint64]:
    source = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(purpose.encode()), number]))
    return np.asarray(source.random_raw(count), np.uint64).reshape(count)


def permutation(seed: int, purpose: str, number: int, count: int) -> NDArray[np.int64]:
    """int64[count]: the numbers below `count` in random order; another one for each purpose and number."""
    return np.argsort(_raw(seed, purpose, number, count), kind="stable")
