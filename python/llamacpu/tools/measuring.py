"""What measurements over the chunks of a text share: groups of chunks, progress, and states to continue from."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from llamacpu.arguments import function, integer
from llamacpu.engine.adapter_set import default_fingerprint
from llamacpu.engine.interfaces import CancelToken, KVType, ModelLike
from llamacpu.errors import ModelError
from llamacpu.tools import progress_file
from llamacpu.tools.chunks import Chunks, Piece, pieces

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Measurement", "Progress", "StateKeeper"]

Progress = Callable[[int, int], None]
"""(tokens that are done, tokens of all chunks)"""
_SECONDS_BETWEEN_STATES = 10.0


class StateKeeper:
    """Saves a state every ten seconds, and at the end of a block in which something was done, also after an error."""

    def __init__(self, path: str | os.PathLike[str] | None, save: Callable[[str | os.PathLike[str]], None]) -> None:
        self._path, self._save = path, save
        self._saved = 0.0
        self._changed = False

    def due(self) -> None:
        """Save, if it is time; called whenever something has been added."""
        self._changed = True
        if time.monotonic() - self._saved > _SECONDS_BETWEEN_STATES:
            self.save()

    def save(self) -> None:
        """Save what has not been saved yet."""
        if self._path is not None and self._changed:
            self._save(self._path)
        self._saved, self._changed = time.monotonic(), False

    def __enter__(self) -> StateKeeper:
        self._saved = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.save()


class Measurement(ABC):
    """A measurement of the scored tokens of some chunks, which runs while it is iterated over.

    done, total  tokens through which the models have gone, and all of them

    `columns` holds what has been measured, one element per token. With a file to resume from, the state is saved there
    every ten seconds and at the end, also after Ctrl-C or an error.
    """

    kind: ClassVar[str]
    names: ClassVar[Mapping[str, str]]
    """column -> type"""

    def __init__(
        self,
        models: Sequence[ModelLike],
        chunks: Chunks,
        *,
        batch_tokens: int,
        kv_type: KVType,
        resume: str | os.PathLike[str] | None,
        cancel: CancelToken | None,
    ) -> None:
        integer("batch_tokens", batch_tokens)
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens is {batch_tokens}; expected at least 1")
        self.models: Sequence[ModelLike] = models
        self.chunks: Chunks = chunks
        self._group = max(1, batch_tokens // chunks.context)
        self._kv_type: KVType = kv_type
        self._resume, self._cancel = resume, cancel
        self.columns: dict[str, NDArray[Any]] = {name: np.empty(0, dtype) for name, dtype in self.names.items()}
        self.chunks_done: int = 0
        self.done: int = 0
        self._state = StateKeeper(resume, self._save)
        if resume is not None:
            self._restore(resume)

    @property
    def total(self) -> int:
        """Tokens of all chunks."""
        return self.chunks.count * self.chunks.context

    def subject(self) -> dict[str, Any]:
        """What is measured."""
        return {
            "model": [default_fingerprint(model) for model in self.models],
            "text": self.chunks.digest(),
            "context": self.chunks.context,
            "stride": None if self.chunks.step == self.chunks.context else self.chunks.step,
            "kv_type": self._kv_type,
        }

    @abstractmethod
    def measured(self, piece: Piece, group: range) -> Sequence[Mapping[str, NDArray[Any]]]:
        """The columns of a piece, per chunk of the group."""

    def __iter__(self) -> Iterator[None]:
        """Run; yields after every step."""
        with self._state:
            while self.chunks_done < self.chunks.count:
                stop = min(self.chunks_done + self._group, self.chunks.count)
                yield from self._run(range(self.chunks_done, stop))
                self._state.due()
                yield

    def run(self, on_progress: Progress | None = None) -> None:
        """Run to the end."""
        function("on_progress", on_progress)
        for _ in self:
            if on_progress is not None:
                on_progress(self.done, self.total)

    def _save(self, path: str | os.PathLike[str]) -> None:
        progress_file.save(path, self.kind, self.subject(), self.columns)

    def positions(self) -> NDArray[np.int64]:
        """The positions in the text of the tokens that have been measured."""
        found = [self.chunks.positions(index) for index in range(self.chunks_done)]
        return np.concatenate(found) if found else np.empty(0, np.int64)

    def _restore(self, path: str | os.PathLike[str]) -> None:
        columns = progress_file.load(path, self.kind, self.subject())
        if columns is None:
            return
        lengths = {len(column) for column in columns.values()}
        types = {name: column.dtype.str for name, column in columns.items()}
        if types != dict(self.names) or len(lengths) != 1 or min(lengths) % self.chunks.scored:
            raise ValueError(f"{os.fspath(path)} is damaged: its columns do not fit together. Delete it to begin again")
        self.chunks_done = min(min(lengths) // self.chunks.scored, self.chunks.count)
        self.columns = {name: column[: self.chunks_done * self.chunks.scored] for name, column in columns.items()}
        self.done = self.chunks_done * self.chunks.context

    def _run(self, group: range) -> Iterator[None]:
        found: list[list[Mapping[str, NDArray[Any]]]] = [[] for _ in group]
        before = self.chunks_done * self.chunks.context
        for piece in pieces(self.models, self.chunks, group, self._kv_type, self._cancel):
            if isinstance(piece, int):
                self.done = before + piece * len(group)
                yield
                continue
            for of_chunk, columns in zip(found, self.measured(piece, group), strict=True):
                of_chunk.append(columns)
            self.done = before + piece.tokens * len(group)
            if piece.tokens < self.chunks.context - 1:
                yield
        parts = [columns for of_chunk in found for columns in of_chunk]
        self.columns = {
            name: np.concatenate([column, *(part[name] for part in parts)]) for name, column in self.columns.items()
        }
        self.chunks_done = group.stop
        self.done = group.stop * self.chunks.context

    def labels(self, piece: Piece, index: int) -> NDArray[np.int64]:
        """The tokens that the rows of a piece predict."""
        positions = self.chunks.positions(index)[piece.first :][: piece.rows]
        return self.chunks.tokens[positions]

    def checked(self, log_probabilities: NDArray[np.float64], index: int) -> NDArray[np.float64]:
        """The same. Raises ModelError if one is not a number."""
        if np.isnan(log_probabilities).any():
            raise ModelError(f"the logits of chunk {index} are not numbers: the weights of the model are damaged")
        return log_probabilities
