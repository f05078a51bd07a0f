"""What the native module offers, one section per file of rust/bindings/src."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# --- gguf.rs ---------------------------------------------------------------------------------------------------------

class _Buffer(Protocol):
    """Anything with the buffer protocol: bytes, mmap, memoryview, a uint8 array."""

    def __buffer__(self, flags: int, /) -> memoryview: ...

def index_strings(buffer: _Buffer, start: int, count: int) -> tuple[NDArray[np.uint64], int]:
    """Find the `count` strings of a GGUF string array whose first length prefix lies at byte `start` of `buffer`.

    Returns `(offsets, end)`. `offsets` has `count + 1` entries: where the length prefix of every string begins, then
    `end`, the position of the first byte after the array. String `i` is `buffer[offsets[i] + 8 : offsets[i + 1]]`.
    Raises GGUFError if the strings do not fit into the buffer; nothing is allocated that the buffer does not justify.
    """
