"""Safe replacement of files: checked first, written to a temporary file, then moved into place atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = ["is_file", "replacing"]


def is_file(name: str) -> bool:
    """Return whether a regular file of this name exists; False for names that no file system accepts."""
    return os.path.isfile(name)  # noqa: PTH113 (Path.is_file raises for a name that is too long)


@contextlib.contextmanager
def replacing(
    path: str | os.PathLike[str],
    kind: str,
    is_kind: Callable[[BinaryIO], bool],
    *,
    private: bool = False,
    ordinary: bool = False,
) -> Iterator[BinaryIO]:
    """Open a file that becomes `path` if the block ends without an error; otherwise an older file stays as it was.

    A symbolic link is followed: the file that it points to is replaced, and the link stays. Only its owner may read a
    new file, unless it is `ordinary`: then it has the permissions that the system gives to new files. One that replaces
    an older file keeps the older file's permissions, unless it is to be `private`.

    kind: what is written, for error messages ("a saved session"). is_kind: tells whether an open, readable, non-empty
    file holds that kind, so that no other file is overwritten by accident.

    Raises FileExistsError if `path` is a file of another kind or is not a regular file, PermissionError for a file that
    may not be written, and other kinds of OSError.
    """
    if "\0" in os.fsdecode(path):
        raise OSError(errno.EINVAL, "no file can have a name with a zero character; give another name", repr(path))
    target = Path(os.path.realpath(path))
    mode = _checked(Path(path), target, kind, is_kind)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, "there is no such folder; make it, or give another name", str(path))
    descriptor, name = _new_file(target, 0o666 if ordinary else 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if mode is not None and not private:
            Path(name).chmod(mode)
        Path(name).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise


def _new_file(target: Path, mode: int) -> tuple[int, str]:
    """Make an empty file with a name of its own beside `target`; return its descriptor and its path."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    while True:
        name = str(target.parent / f".{target.name[:40]}.{os.urandom(6).hex()}.part")
        with contextlib.suppress(FileExistsError):
            return os.open(name, flags, mode), name


def _checked(path: Path, target: Path, kind: str, is_kind: Callable[[BinaryIO], bool]) -> int | None:
    """Return the permissions of the file that will be replaced, None if there is none."""
    try:
        # The status of the path, not of the target: the entries of /proc/self/fd are not links that could be read.
        status = path.stat()
    except FileNotFoundError:
        if not target.name:
            raise
        return None
    if not stat.S_ISREG(status.st_mode):
        what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        raise FileExistsError(errno.EEXIST, f"this is {what}; give the name of a file for {kind}", str(path))
    if not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "the file may not be written; change its permissions", str(path))
    if status.st_size:
        with target.open("rb") as older:
            if not is_kind(older):
                raise FileExistsError(
                    errno.EEXIST, f"the file holds something other than {kind}; give another name", str(path)
                )
    return stat.S_IMODE(status.st_mode)
