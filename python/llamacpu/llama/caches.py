"""Caches of states for `Llama.set_cache`, in memory and on disk, with llama-cpp-python's interface."""

from __future__ import annotations

import contextlib
import hashlib
import os
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from llamacpu import log
from llamacpu.engine import saved_sessions, session_format
from llamacpu.engine.adapter_set import adapters_of, default_fingerprint, fingerprint_of
from llamacpu.errors import SessionError
from llamacpu.generation.context_window import shared_length
from llamacpu.llama.state import LlamaState
from llamacpu.locks import ProcessLock

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import KVType, ModelLike

__all__ = ["BaseLlamaCache", "LlamaCache", "LlamaDiskCache", "LlamaRAMCache"]


_MISSING = "there is no state with a common beginning"
_SUFFIX = ".session"
# Header of the note in a cached session: seed (-1 for none), then rows and columns of the logits, which follow.
_NOTE = struct.Struct("<qQQ")


class BaseLlamaCache:
    """Base class of the caches that `Llama.set_cache` takes: states by their tokens.

    capacity_bytes  maximum size of the cache

    This class itself stores nothing.
    """

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        self.capacity_bytes = capacity_bytes

    @property
    def cache_size(self) -> int:
        """The size of the cache in bytes."""
        return 0

    def best_for(
        self, model: ModelLike, tokens: Sequence[int], longer_than: int = 0, kv_type: KVType | None = None
    ) -> LlamaState | None:
        """The state of the model with the longest common prefix with the tokens, if longer than `longer_than` tokens.

        With `kv_type`, only states whose keys and values are stored in that type are considered.
        """
        try:
            state = self[tokens]
        except KeyError:
            return None
        if not (state.is_of(model) and state.kv_type in (None, kv_type or state.kv_type)):
            return None
        return state if shared_length(state.input_ids.tolist(), tokens) > longer_than else None

    def __contains__(self, key: Sequence[int]) -> bool:
        return False

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        raise KeyError(_MISSING)

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        """Store nothing."""


class LlamaRAMCache(BaseLlamaCache):
    """States in memory; the least recently used are removed first when they exceed `capacity_bytes`."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self.cache_state: OrderedDict[tuple[int, ...], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        """The size of the cache in bytes; keys and values shared between states are counted in each of them."""
        return sum(state.llama_state_size for state in self.cache_state.values())

    def best_for(
        self, model: ModelLike, tokens: Sequence[int], longer_than: int = 0, kv_type: KVType | None = None
    ) -> LlamaState | None:
        """The state of the model with the longest common prefix with the tokens, if longer than `longer_than` tokens.

        With `kv_type`, only states whose keys and values are stored in that type are considered.
        """
        best = self._best(tokens, model, longer_than, kv_type)
        return None if best is None else self._used(best)

    def _best(
        self,
        key: Sequence[int],
        model: ModelLike | None = None,
        longer_than: int = 0,
        kv_type: KVType | None = None,
    ) -> tuple[int, ...] | None:
        best = None
        for known, state in self.cache_state.items():
            length = shared_length(known, key)
            if length <= longer_than or not (model is None or state.is_of(model)):
                continue
            if kv_type is None or state.kv_type in (None, kv_type):
                best, longer_than = known, length
        return best

    def _used(self, key: tuple[int, ...]) -> LlamaState:
        self.cache_state.move_to_end(key)
        return self.cache_state[key]

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._best(key) is not None

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        best = self._best(key)
        if best is None:
            raise KeyError(_MISSING)
        return self._used(best)

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        self.cache_state.pop(tuple(key), None)
        self.cache_state[tuple(key)] = value
        while self.cache_state and self.cache_size > self.capacity_bytes:
            self.cache_state.popitem(last=False)


LlamaCache = LlamaRAMCache


class _Entry(NamedTuple):
    """The data of a file that is known without reading all of it."""

    fingerprint: bytes
    kv_type: KVType
    tokens: npt.NDArray[np.int64]


class LlamaDiskCache(BaseLlamaCache):
    """States as files in a folder, shared with later processes and other programs that use the same model.

    cache_dir       the folder, created if missing. Its files contain conversations and are readable only by their
                    owner
    capacity_bytes  maximum total size of the files; the least recently used are deleted first

    Each file is a saved session (`llamacpu.engine.saved_sessions`), checksummed and bound to its model: nothing is
    unpickled, and damaged files are deleted. Several processes may share a folder.
    """

    def __init__(self, cache_dir: str | os.PathLike[str] = ".cache/llama_cache", capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self.cache_dir: Path = Path(cache_dir)
        self.cache_dir.mkdir(parents=True, exist_ok=True)
        self._entries: dict[str, _Entry] = {}
        self._lock = ProcessLock()

    @property
    def cache_size(self) -> int:
        """The total size of the files in bytes."""
        return sum(size for _, size, _ in self._files())

    def best_for(
        self, model: ModelLike, tokens: Sequence[int], longer_than: int = 0, kv_type: KVType | None = None
    ) -> LlamaState | None:
        """The state of the model with the longest common prefix with the tokens, if longer than `longer_than` tokens.

        With `kv_type`, only states whose keys and values are stored in that type are considered.
        """
        return self._state(self._best(tokens, bytes.fromhex(default_fingerprint(model)), longer_than, kv_type))

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._best(key) is not None

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        state = self._state(self._best(key))
        if state is None:
            raise KeyError(_MISSING)
        return state

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        if value.session is None:
            raise ValueError("the state has no session: load it into a Llama and save that, to keep it on disk")
        tokens = np.array(key, dtype="<i8")
        what = (
            bytes.fromhex(fingerprint_of(value.session.model, adapters_of(value.session)))
            + value.session.kv_type.encode()
        )
        digest = hashlib.sha256(what + tokens.tobytes()).hexdigest()
        path = self.cache_dir / f"{digest[:40]}{_SUFFIX}"
        scores = np.atleast_2d(np.ascontiguousarray(value.scores, dtype="<f4"))
        note = _NOTE.pack(-1 if value.seed is None else value.seed, *scores.shape) + scores.tobytes()
        saved_sessions.save(value.session, path, note)
        self._make_room()

    def _files(self) -> list[tuple[float, int, Path]]:
        """The time of last use, size and path of every file in the cache."""
        found = []
        for path in self.cache_dir.glob(f"*{_SUFFIX}"):
            with contextlib.suppress(OSError):  # another process may have deleted it
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        return found

    def _make_room(self) -> None:
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        for _, size, path in files:
            if total <= self.capacity_bytes:
                break
            self._forget(path)
            total -= size

    def _forget(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            path.unlink()
        with self._lock:
            self._entries.pop(path.name, None)

    def _known(self) -> Iterator[tuple[Path, _Entry]]:
        """Every file with a valid header; each file is read only once."""
        for _, _, path in self._files():
            with self._lock:
                entry = self._entries.get(path.name)
            if entry is None:
                try:
                    with session_format.open_regular(path) as file:
                        header = session_format.read_header(file, path.name)
                        tokens = session_format.read_tokens(file, header, path.name)
                except (OSError, SessionError) as error:
                    log.warning("a file of the cache cannot be used: %s", error)
                    self._forget(path)
                    continue
                entry = _Entry(header.fingerprint, header.kv_type, np.array(tokens, dtype=np.int64))
                with self._lock:
                    self._entries[path.name] = entry
            yield path, entry

    def _best(
        self,
        key: Sequence[int],
        fingerprint: bytes | None = None,
        longer_than: int = 0,
        kv_type: KVType | None = None,
    ) -> Path | None:
        best = None
        tokens = np.array(key, dtype=np.int64)
        for path, entry in self._known():
            count = min(len(tokens), len(entry.tokens))
            different = np.flatnonzero(tokens[:count] != entry.tokens[:count])
            length = int(different[0]) if len(different) else count
            same = fingerprint in (None, entry.fingerprint) and kv_type in (None, entry.kv_type)
            if length > longer_than and same:
                best, longer_than = path, length
        return best

    def _state(self, path: Path | None) -> LlamaState | None:
        if path is None:
            return None
        try:
            with session_format.open_regular(path) as file:
                header = session_format.read_header(file, path.name)
                ids = np.array(session_format.read_tokens(file, header, path.name), dtype=np.intc)
                seed, scores = _noted(session_format.read_note(file, header, path.name))
                file.seek(0)
                data = file.read(header.file_bytes)
            os.utime(path)
        except (OSError, SessionError) as error:
            log.warning("a file of the cache cannot be used: %s", error)
            self._forget(path)
            return None
        return LlamaState(ids, scores, len(ids), data, seed=seed)


def _noted(note: bytes) -> tuple[int | None, npt.NDArray[np.float32]]:
    """The seed and the logits, float32[rows, vocabulary], stored in a note. Raises SessionError if it is invalid."""
    if len(note) < _NOTE.size:
        raise SessionError("a session of the cache has no seed and logits; delete the file")
    seed, rows, columns = _NOTE.unpack(note[: _NOTE.size])
    if len(note) != _NOTE.size + 4 * rows * columns or max(rows, columns) > 1 << 30:
        raise SessionError(f"a session of the cache has no {rows} rows of {columns} logits; delete the file")
    scores = np.frombuffer(note, dtype="<f4", offset=_NOTE.size).reshape(rows, columns).astype(np.float32)
    return None if seed < 0 else seed, scores
