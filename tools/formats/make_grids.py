"""Write the grids of the IQ formats, taken from the gguf package, to rust/kernels/src/formats/grids.bin.

Every entry is 16 bits, little-endian: 8 values of 2 bits (IQ2, IQ1) or 4 values of 4 bits (IQ3), each the rank of its
magnitude (IQ1: of the value), the first value in the lowest bits. The grids are constant data of ggml (MIT licence).

    python tools/formats/make_grids.py
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import quants

FORMATS = ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S")
TARGET = Path(__file__).parents[2] / "rust/kernels/src/formats/grids.bin"


def entries(name: str) -> np.ndarray:
    """Return the 16-bit entries of one grid."""
    owner = getattr(quants, name)
    owner.init_grid()
    grid = owner.grid.reshape(owner.grid_shape)
    ranks = np.searchsorted(np.array(owner.grid_map), grid).astype(np.uint16)
    bits = 16 // grid.shape[1]
    return np.bitwise_or.reduce(ranks << (bits * np.arange(grid.shape[1], dtype=np.uint16)), axis=1).astype("<u2")


if __name__ == "__main__":
    TARGET.write_bytes(b"".join(entries(name).tobytes() for name in FORMATS))
