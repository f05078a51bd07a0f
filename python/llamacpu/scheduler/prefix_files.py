"""Prefixes that outlive the process: saved sessions in a folder, within a limit of bytes.

Every file is a saved session (`llamacpu.engine.saved_sessions`): checksummed, bound to its model, written to a
temporary file and moved into place. Other files in the folder are left alone, and so are those of other models until
the limit requires their space; a file that cannot be used is named in the log and ignored. Several processes may share
a folder.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from llamacpu import log
from llamacpu.engine import saved_sessions, session_format
from llamacpu.engine.adapter_set import AdapterSet, adapters_of, fingerprint_of
from llamacpu.engine.interfaces import PAGE_TOKENS, KVType, ModelLike, SessionLike
from llamacpu.errors import LlamaCpuError
from llamacpu.families.memory import state_size
from llamacpu.scheduler.prefix_cache import Kinds, TokenKey, key_of

if TYPE_CHECKING:
    from llamacpu.scheduler.statistics import Statistics

__all__ = ["PrefixFiles"]


_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{32}\.session")
_TOKEN = 4


class PrefixFiles:
    """The files of one model in a folder.

    limit    bytes of all files of this kind in the folder, including those of other models; the least recently used
             are deleted first
    context  the most tokens of a session; longer ones are ignored
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        limit: int,
        model: ModelLike,
        kv_type: KVType,
        context: int,
        statistics: Statistics,
    ) -> None:
        self.folder: Path = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(self.folder, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(f"{self.folder}: the folder of the prefix cache cannot be read and written")
        self._limit = limit
        self._model = model
        self._kv_type = kv_type
        self._context = context
        self._statistics = statistics
        self._lock = threading.RLock()
        self._kinds = Kinds()
        # Files are read by one thread at a time: others may want the same file, and then find it in memory.
        self.loading: threading.Lock = threading.Lock()

    def kind_of(self, session: SessionLike) -> str:
        """Return the fingerprint of what computed a session."""
        return fingerprint_of(self._model, adapters_of(session))

    def scan(self) -> None:
        """Find the files that can be used."""
        for _, _, path in self._files():
            if not path.name.startswith(self._model.fingerprint[:16]):
                continue
            try:
                with session_format.open_regular(path) as file:
                    header = session_format.read_header(file, path.name)
                    kind = header.fingerprint.hex()
                    known = header.adapted or kind == self._model.fingerprint
                    if not known or header.kv_type != self._kv_type or header.tokens > self._context:
                        continue
                    key = key_of(session_format.read_tokens(file, header, path.name))
            except (OSError, LlamaCpuError, MemoryError) as error:
                self._complain(path, error)
                continue
            if self._path(kind, key) != path:
                self._complain(path, "its name is not that of its tokens")
                continue
            with self._lock:
                if not self._kinds.of(kind).covers(key):
                    self._kinds.of(kind).add(key)

    def length(self, kind: str, key: TokenKey) -> int:
        """Return how many tokens of a prompt the best file holds, computed by the model and adapters `kind`."""
        with self._lock:
            nearest = self._kinds.of(kind).nearest(key)
        return nearest[1] if nearest else 0

    def file_bytes(self, kind: str, key: TokenKey) -> int:
        """Return the bytes of keys and values of the session that `load` would read."""
        with self._lock:
            nearest = self._kinds.of(kind).nearest(key)
        return 0 if nearest is None else self._bytes(nearest[0])

    def load(self, adapters: AdapterSet, key: TokenKey) -> SessionLike | None:
        """Load the session that shares the most tokens with a prompt; None if its file turns out to be unusable."""
        kind = fingerprint_of(self._model, adapters)
        with self._lock:
            nearest = self._kinds.of(kind).nearest(key)
        if nearest is None:
            return None
        path = self._path(kind, nearest[0])
        try:
            session = saved_sessions.load(self._model, path, self._context, adapters)
            if key_of(session.tokens) != nearest[0] or session.kv_type != self._kv_type:
                raise ValueError("another session has taken its place")
            os.utime(path)
        except (OSError, LlamaCpuError, ValueError, MemoryError) as error:
            with self._lock:
                self._kinds.remove(kind, nearest[0])
            if not isinstance(error, FileNotFoundError):  # otherwise another process needed its space
                self._complain(path, error)
            return None
        self._statistics.add(prefix_disk_hits=1)
        return session

    def save(self, session: SessionLike) -> None:
        """Write a session that nobody else uses, unless a file already holds its tokens."""
        key, kind = key_of(session.tokens), self.kind_of(session)
        with self._lock:
            if self._kinds.of(kind).covers(key):
                return
        path = self._path(kind, key)
        try:
            if not self._make_room(self._bytes(key)):
                return
            saved_sessions.save(session, path)
        except (OSError, LlamaCpuError, MemoryError) as error:
            self._complain(path, error)
            return
        with self._lock:
            order = self._kinds.of(kind)
            shorter = order.add(key) if not order.covers(key) else None
        if shorter is not None:
            self._path(kind, shorter).unlink(missing_ok=True)
        self._statistics.add(prefix_disk_writes=1)
        self._statistics.prefix_disk_bytes = sum(size for _, size, _ in self._files())

    def _make_room(self, nbytes: int) -> bool:
        """Delete the least recently used files until there is room for `nbytes` bytes; False if there cannot be."""
        if nbytes > self._limit:
            return False
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total + nbytes <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= size
            with self._lock:
                for kind, order in self._kinds.items():
                    for key in [key for key in order if self._path(kind, key) == path]:
                        self._kinds.remove(kind, key)
        return total + nbytes <= self._limit

    def _files(self) -> list[tuple[float, int, Path]]:
        """Return the time of last use, size and path of every file of this kind; links and other files are skipped."""
        found = []
        with os.scandir(self.folder) as entries:
            for entry in entries:
                if not _NAME.fullmatch(entry.name):
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found

    def _path(self, kind: str, key: TokenKey) -> Path:
        adapted = "" if kind == self._model.fingerprint else f"{kind} "
        digest = hashlib.sha256(f"{self._kv_type} {adapted}".encode() + key).hexdigest()
        return self.folder / f"{self._model.fingerprint[:16]}-{digest[:32]}.session"

    def _bytes(self, key: TokenKey) -> int:
        tokens = len(key) // _TOKEN
        pages = -(-tokens // PAGE_TOKENS) * self._model.page_bytes(self._kv_type)
        return pages + state_size(self._model.config) + len(key)

    def _complain(self, path: Path, error: object) -> None:
        self._statistics.add(prefix_disk_errors=1)
        log.warning("prefix cache: %s is not used: %s", path, error)
