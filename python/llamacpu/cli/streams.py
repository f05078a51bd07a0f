"""The standard streams as the commands want them, also where the caller closed some (`2>&-`, cron, pythonw)."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import sys
from typing import NoReturn

__all__ = ["open_standard_streams"]


class _Closed(io.TextIOBase):
    """Stands for a closed stdout: the product has nowhere to go, which is an error of whoever writes to it."""

    encoding = "utf-8"

    def writable(self) -> bool:
        """It is a stream for writing."""
        return True

    def write(self, _text: str, /) -> NoReturn:
        """Raise OSError."""
        raise OSError(errno.EBADF, "stdout is closed; leave it open, or send it to a file")


def open_standard_streams() -> None:
    """Put something in the place of every standard stream that is closed.

    stdin reads as empty, stderr swallows what it is told, and writing to stdout is an OSError. The descriptors 0 to 2
    are taken too: otherwise the next file to be opened, a model or a saved session, would become somebody's stderr.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, os.O_RDWR)  # the lowest free number
    # The streams are for the whole process, whose end closes them.
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stdout is None:
        sys.stdout = _Closed()
