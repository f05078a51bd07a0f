"""Tables of replacements as SentencePiece writes them (a double array, then the texts), made in a test."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def charsmap(replaced: Mapping[str, str]) -> bytes:
    """The table that replaces each key by its value. Simple rather than small: every node has a block of its own."""
    keys = {key.encode(): value.encode() for key, value in replaced.items()}
    blocks = {b"": 0}
    for key in keys:
        for length in range(1, len(key) + 1):
            blocks.setdefault(key[:length], 256 * len(blocks))
    units = np.zeros(256 * len(blocks), dtype=np.uint32)
    texts = b""
    for key, block in blocks.items():
        if not key:
            continue
        at = blocks[key[:-1]] ^ key[-1]
        way = at ^ block
        if way >= 1 << 21:
            raise ValueError("too many replacements for this simple table")
        units[at] = way << 10 | key[-1]
        if key in keys:
            units[at] |= 1 << 8
            units[block] = len(texts) | 1 << 31
            texts += keys[key] + b"\0"
    array = units.tobytes()
    return len(array).to_bytes(4, "little") + array + (texts or b"\0")
