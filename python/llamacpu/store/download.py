"""Downloading a file: in parallel ranges, resumed after an interruption, checked before it gets its final name."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from urllib.parse import urlsplit

from llamacpu.errors import StoreError
from llamacpu.store.file_lock import file_lock
from llamacpu.store.transfer import open_url, patiently

__all__ = ["Progress", "download", "partial_path"]

CHUNK = 8 << 20
"""The bytes requested at a time."""
CONNECTIONS = 4
_BLOCK = 1 << 18
Progress = Callable[[int, int], None]
"""Called with (bytes downloaded so far, total bytes)."""


class _NoRangesError(Exception):
    """The server sends the whole file, whatever range is requested."""


def partial_path(target: Path) -> Path:
    """Return where a file is stored until it is complete and checked."""
    return target.with_name(target.name + ".partial")


def download(
    url: str,
    target: Path,
    size: int,
    sha256: str | None,
    headers: Mapping[str, str] | None = None,
    on_progress: Progress | None = None,
    *,
    again: bool = False,
) -> None:
    """Download the file of `size` bytes at `url` to `target`, unless it exists; `again`: even if it exists.

    Until its bytes have been checked against `sha256` it has another name, and what has been downloaded is kept for the
    next attempt. If several processes want the file, one downloads it while the others wait. Raises StoreError;
    KeyboardInterrupt keeps what has been downloaded so far.
    """
    tell = on_progress or (lambda _done, _total: None)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        state = _State(target, size, sha256)
        with file_lock(target.with_name(target.name + ".lock"), lambda: tell(state.peek(), size)):
            if not again and target.is_file() and target.stat().st_size == size:
                tell(size, size)
                return
            _room(target, size - state.load())
            _fetch(url, state, headers or {}, tell)
            _check(state, sha256)
            state.finish()
            tell(size, size)
    except OSError as error:
        words = "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)
        raise StoreError(f"{target}: cannot be written: {words}; LLAMACPU_MODELS names another folder") from None


class _State:
    """Which chunks of the partial file are complete; stored next to it, one byte per chunk after a line of JSON."""

    def __init__(self, target: Path, size: int, sha256: str | None) -> None:
        self.target, self.size = target, size
        self.path = partial_path(target)
        self._list = target.with_name(target.name + ".partial.chunks")
        self._head = json.dumps({"size": size, "sha256": sha256, "chunk": CHUNK}).encode() + b"\n"
        self.count = -(-size // CHUNK)
        self.done = bytearray(self.count)
        self._lock = threading.Lock()

    def load(self) -> int:
        """Return the bytes that an earlier attempt has left; discard what belongs to another file."""
        with contextlib.suppress(OSError):
            data = self._list.read_bytes()
            fits = data.startswith(self._head) and len(data) == len(self._head) + self.count
            if fits and self.path.stat().st_size == self.size:
                self.done = bytearray(data[len(self._head) :])
                return self.here
        self.forget()
        return 0

    @property
    def here(self) -> int:
        """Bytes of the complete chunks."""
        return sum(min(CHUNK, self.size - index * CHUNK) for index, done in enumerate(self.done) if done)

    def peek(self) -> int:
        """Return the bytes that another process has downloaded so far."""
        try:
            data = self._list.read_bytes()[len(self._head) :]
        except OSError:
            return 0
        return min(sum(data[: self.count]) * CHUNK, self.size)

    def begin(self) -> None:
        """Create both files at their full length."""
        if not self.path.exists():
            with self.path.open("wb") as file:
                file.truncate(self.size)
            self._list.write_bytes(self._head + self.done)

    def mark(self, index: int) -> None:
        """Mark a chunk as complete."""
        with self._lock:
            self.done[index] = 1
            with self._list.open("r+b") as file:
                file.seek(len(self._head) + index)
                file.write(b"\1")

    def forget(self) -> None:
        """Discard what has been downloaded."""
        self.done = bytearray(self.count)
        for path in (self.path, self._list):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()

    def finish(self) -> None:
        """Give the file its final name."""
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        with contextlib.suppress(OSError):
            self._list.unlink()


def _room(target: Path, needed: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise StoreError(
            f"{target.name} needs {needed / 1e9:.1f} GB more, and {target.parent} has {free / 1e9:.1f} GB free; "
            "make room, or name another folder in LLAMACPU_MODELS"
        )


def _fetch(url: str, state: _State, headers: Mapping[str, str], tell: Progress) -> None:
    state.begin()
    missing = [index for index in range(state.count) if not state.done[index]]
    work = _Work(url, state, headers, state.here, tell)
    tell(work.here, state.size)
    if not missing:
        return
    try:
        # The first chunk alone: it reveals whether the server supports ranges, and most other problems.
        work.chunk(missing[0])
        with ThreadPoolExecutor(CONNECTIONS, "download") as pool:
            waiting = {pool.submit(work.chunk, index) for index in missing[1:]}
            try:
                while waiting:
                    ended, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for one in ended:
                        one.result()
            except BaseException:
                work.stop = True
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    except _NoRangesError:
        work.whole()


class _Work:
    """The requests for one file. here: bytes received, including those of incomplete chunks."""

    def __init__(self, url: str, state: _State, headers: Mapping[str, str], here: int, tell: Progress) -> None:
        self.url, self.state, self.headers, self.here = url, state, headers, here
        self.stop = False
        self._host = urlsplit(url).hostname or url
        self._tell = tell
        self._lock = threading.Lock()

    def chunk(self, index: int) -> None:
        """Download one chunk; a broken connection resumes where it broke off."""
        place = start = index * CHUNK
        end = min(start + CHUNK, self.state.size)

        def go_on() -> None:
            nonlocal place
            with open_url(self.url, self.headers, place, end - 1) as answer, self.state.path.open("r+b") as file:
                if answer.status == 200 and not (place == 0 and end == self.state.size):
                    raise _NoRangesError
                self._compare(answer, place)
                file.seek(place)
                while place < end and not self.stop:
                    data = answer.read(min(_BLOCK, end - place))
                    if not data:
                        raise ConnectionError(errno.ECONNRESET, "the connection ended too early")
                    file.write(data)
                    place += len(data)
                    self._told(len(data))

        if not self.stop:
            patiently(go_on, self._host, lambda: self.stop, lambda: place)
        if place == end:
            self.state.mark(index)

    def whole(self) -> None:
        """Download the whole file over one connection, from the beginning on each attempt."""

        def once() -> None:
            self.here, place = 0, 0
            with open_url(self.url, self.headers) as answer, self.state.path.open("r+b") as file:
                self._compare(answer, 0)
                while place < self.state.size:
                    data = answer.read(min(_BLOCK, self.state.size - place))
                    if not data:
                        raise ConnectionError(errno.ECONNRESET, "the connection ended too early")
                    file.write(data)
                    place += len(data)
                    self._told(len(data))

        patiently(once, self._host)
        for index in range(self.state.count):
            self.state.mark(index)

    def _compare(self, answer: object, place: int) -> None:
        """Check that the response is for the requested position, in a file of the announced size."""
        headers = answer.headers  # type: ignore[attr-defined]
        told = headers.get("Content-Range")
        if told is not None:
            unit, _, rest = told.partition(" ")
            span, _, total = rest.partition("/")
            good = unit == "bytes" and span.partition("-")[0] == str(place) and total in ("*", str(self.state.size))
        else:
            length = headers.get("Content-Length")
            good = length is None or length == str(self.state.size)
        if not good:
            raise StoreError(
                f"{self._host} sends {told or headers.get('Content-Length')!r:.60}, expected byte {place} of "
                f"{self.state.size}; the file has changed, or the server is wrong: try again later"
            )

    def _told(self, count: int) -> None:
        with self._lock:
            self.here += count
            self._tell(min(self.here, self.state.size), self.state.size)


def _check(state: _State, sha256: str | None) -> None:
    if sha256 is None:
        return
    digest = hashlib.sha256()
    with state.path.open("rb") as file:
        while data := file.read(1 << 20):
            digest.update(data)
    if digest.hexdigest() != sha256:
        state.forget()
        raise StoreError(
            f"{state.target.name}: the bytes that came have the sha256 {digest.hexdigest()[:16]}..., expected "
            f"{sha256[:16]}...; they are thrown away: try again, and if it happens again the server is wrong"
        )
