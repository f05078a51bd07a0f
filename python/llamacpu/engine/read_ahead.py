"""Reading a mapped file before its pages are needed, so that a first step with a cold page cache waits for little.

Page faults of the threads that pack the weights keep few reads under way; the system gives the full speed of a disk to
someone who asks for much at a time. So a thread asks for the weights in the order in which a step uses them, while the
tokenizer is made and the first layers are packed. Where the system has no such call (macOS, Windows), nothing is done.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from llamacpu.gguf.header import Tensor

__all__ = ["ReadAhead", "ranges_in_order"]

_LAYER = re.compile(r"blk\.(\d+)\.")
_EXPERT = re.compile(r"\.ffn_(gate|up|down|gate_up)(_exps|\.\d+)\.")
_PIECE = 8 << 20
_WORTHWHILE = 32 << 20
"""Bytes below which the first step reads what it needs as fast."""
_NEVER = 1 << 30


def ranges_in_order(tensors: Sequence[Tensor]) -> list[tuple[int, int, int]]:
    """Return (file, offset, length) of what a first step reads, in this order; adjacent ranges are joined.

    Experts are left out, because a step uses few of them. A token embedding of which steps only look up rows comes
    last.
    """
    looked_up = any(tensor.name == "output.weight" for tensor in tensors)

    def place(tensor: Tensor) -> tuple[int, int, int]:
        layer = _LAYER.match(tensor.name)
        late = _NEVER + (looked_up and tensor.name.startswith("token_embd."))
        return int(layer[1]) if layer else late, tensor.file, tensor.offset

    found: list[tuple[int, int, int]] = []
    for tensor in sorted((one for one in tensors if not _EXPERT.search(one.name)), key=place):
        if found:
            file, offset, length = found[-1]
            # Between two tensors there is padding.
            if tensor.file == file and 0 <= tensor.offset - offset - length < 4096:
                found[-1] = file, offset, tensor.offset + tensor.nbytes - offset
                continue
        found.append((tensor.file, tensor.offset, tensor.nbytes))
    return found


class ReadAhead:
    """Asks the system for ranges of files, in a thread of its own; `stop` ends it early.

    ranges  number of a file, offset and length in bytes
    """

    def __init__(self, paths: Sequence[Path], ranges: Sequence[tuple[int, int, int]]) -> None:
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        if sum(length for _, _, length in ranges) >= _WORTHWHILE and hasattr(os, "posix_fadvise"):
            self._thread = threading.Thread(
                target=_advise, args=(list(paths), list(ranges), self._stopped), name="llamacpu-read", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # no more threads: only a hint is lost
                self._thread = None

    def stop(self) -> None:
        """Ask for nothing more."""
        self._stopped.set()

    def join(self) -> None:
        """Wait until everything has been asked for, which does not mean that it has been read."""
        if self._thread is not None:
            self._thread.join()


def _advise(paths: Sequence[Path], ranges: Sequence[tuple[int, int, int]], stopped: threading.Event) -> None:
    opened: dict[int, int] = {}
    try:
        for file, offset, length in ranges:
            if file not in opened:
                opened[file] = os.open(paths[file], os.O_RDONLY | os.O_CLOEXEC)
            for start in range(offset, offset + length, _PIECE):
                if stopped.is_set():
                    return
                size = min(_PIECE, offset + length - start)
                os.posix_fadvise(opened[file], start, size, os.POSIX_FADV_WILLNEED)
    except OSError:
        return  # a file that is gone, or a file system without the call: the model reads what it has opened
    finally:
        for descriptor in opened.values():
            os.close(descriptor)
