"""A file of a checkpoint, read in pieces, all of which are from the file that was opened first."""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamacpu.errors import CheckpointError

__all__ = ["Source", "read_small_file"]


class Source:
    """A regular file that is opened for each read, so that a checkpoint of any number of files needs no open files.

    path  the file
    size  in bytes, when this object was made

    Raises CheckpointError if there is no such file, it is not a regular file, or it may not be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Asked before opening: opening a named pipe would wait for its writer.
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
                raise CheckpointError(f"{path.name}: expected a file of a checkpoint, but this is {what}")
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from error
        self.size: int = status.st_size
        self._identity = _identity(status)

    @property
    def name(self) -> str:
        """The file's name, for messages."""
        return self.path.name

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on; CheckpointError if the file ends before or has changed."""
        buffer = self.array(offset, np.dtype(np.uint8), length)
        return buffer.tobytes()

    def array(self, offset: int, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
        """Return `count` elements that begin at byte `offset`, as a new one-dimensional array.

        Raises CheckpointError if the file ends before that, or was changed or replaced after it was opened.
        """
        if offset < 0 or count < 0 or offset + count * dtype.itemsize > self.size:
            raise CheckpointError(
                f"{self.name}: bytes {offset} to {offset + count * dtype.itemsize} were asked for, but the file has "
                f"{self.size}; it is damaged or was not copied whole"
            )
        result = np.empty(count, dtype)
        view = result.view(np.uint8).data if count else memoryview(b"")
        try:
            with self.opened() as file:
                file.seek(offset)
                done = 0
                while done < len(view):
                    read = file.readinto(view[done:])
                    if not read:
                        raise CheckpointError(f"{self.name}: the file became shorter while it was read")
                    done += read
        except OSError as error:
            raise _unreadable(self.path, error) from error
        return result

    @contextlib.contextmanager
    def opened(self) -> Iterator[io.FileIO]:
        """Open the file, which must be the same before and after the block; CheckpointError if it is not."""
        with io.FileIO(self.path) as file:
            self._check(os.fstat(file.fileno()))
            yield file
            self._check(os.fstat(file.fileno()))

    def _check(self, status: os.stat_result) -> None:
        if _identity(status) != self._identity:
            raise CheckpointError(
                f"{self.name}: the file was changed or replaced while the checkpoint was in use; open it again"
            )


def read_small_file(path: Path, limit: int) -> bytes:
    """Return the whole file; CheckpointError if it cannot be read or is larger than `limit` bytes."""
    source = Source(path)
    if source.size > limit:
        raise CheckpointError(f"{path.name}: {source.size} bytes; expected at most {limit} in such a file")
    return source.read(0, source.size)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, CheckpointError):
        return error
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return CheckpointError(f"{path}: the file cannot be read: {reason}")
