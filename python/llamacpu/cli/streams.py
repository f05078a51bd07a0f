"""Standard streams that the commands can rely on, even if the caller closed some (`2>&-`, cron, pythonw)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import NoReturn

__all__ = ["open_standard_streams"]


class _Closed(io.TextIOBase):
    """A stand-in for a closed stdout: the output has nowhere to go, so writing to it is an error."""

    encoding = "utf-8"

    def writable(self) -> bool:
        """True: this is an output stream."""
        return True

    def write(self, _text: str, /) -> NoReturn:
        """Raise OSError."""
        raise OSError(errno.EBADF, "stdout is closed; leave it open, or send it to a file")


def open_standard_streams() -> None:
    """Replace every standard stream that is closed.

    stdin then reads as empty, stderr discards its output, and writing to stdout raises OSError. The descriptors 0 to 2
    are occupied too: otherwise the next file to be opened, a model or a saved session, could be mistaken for stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free descriptor
    # The streams stay open for the whole process and are closed when it ends.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        sys.stdout = _Closed()
