"""Files of log-probabilities, as `llama-perplexity --kl-divergence-base` writes them.

"_logits_", int32 tokens per chunk, int32 vocabulary, int32 chunks, int32 tokens of all chunks; then for every
scored token a record: float32 scale, float32 smallest log-probability, uint16 code per token of the vocabulary,
padded to an even number. A log-probability is smallest + scale * code. All numbers are little-endian.
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from llamacpu.files import replacing
from llamacpu.tools.chunks import Chunks

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LogitFile", "LogitWriter", "is_logit_file"]

_MAGIC = b"_logits_"
_HEAD = struct.Struct("<8siii")


def is_logit_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file of this name exists and begins as a file of log-probabilities does."""
    try:
        with Path(path).open("rb") as file:
            return _begins_so(file)
    except (OSError, ValueError):
        return False


def _begins_so(file: BinaryIO) -> bool:
    return file.read(len(_MAGIC)) == _MAGIC


def _record_bytes(vocabulary: int) -> int:
    return 2 * (vocabulary + vocabulary % 2 + 4)


class LogitFile:
    """A file of log-probabilities, read record by record.

    context, vocab_size, chunks  tokens per chunk, size of the vocabulary, number of chunks
    tokens                       int64[chunks * context]: what was evaluated

    Raises ValueError for a file that is damaged or incomplete, OSError for one that cannot be read. Nothing is
    allocated that the file does not have the size for.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        name = os.fspath(path)
        self._file = Path(path).open("rb")  # noqa: SIM115 (closed by `close`)
        try:
            size = os.fstat(self._file.fileno()).st_size
            head = self._file.read(_HEAD.size)
            if len(head) < _HEAD.size or not head.startswith(_MAGIC):
                raise ValueError(f"{name} is no file of log-probabilities: it does not begin with _logits_")
            numbers: tuple[int, int, int] = _HEAD.unpack(head)[1:]
            self.context: int = numbers[0]
            self.vocab_size: int = numbers[1]
            self.chunks: int = numbers[2]
            if self.context < 3 or self.vocab_size < 1 or self.chunks < 1:
                raise ValueError(
                    f"{name} is damaged: {self.chunks} chunks of {self.context} tokens and a vocabulary of "
                    f"{self.vocab_size}. Make it again"
                )
            self._record = _record_bytes(self.vocab_size)
            self._start = _HEAD.size + 4 * self.chunks * self.context
            expected = self._start + self.chunks * self.scored * self._record
            if size != expected:
                what = "incomplete" if size < expected else "damaged"
                raise ValueError(f"{name} is {what}: {size} bytes; expected {expected}. Make it again")
            data = self._file.read(self._start - _HEAD.size)
            self.tokens: NDArray[np.int64] = np.frombuffer(data, "<i4").astype(np.int64)
            if ((self.tokens < 0) | (self.tokens >= self.vocab_size)).any():
                raise ValueError(f"{name} is damaged: it has tokens outside of its vocabulary of {self.vocab_size}")
        except BaseException:
            self._file.close()
            raise

    @property
    def scored(self) -> int:
        """Tokens per chunk that have a record."""
        return self.context - 1 - self.context // 2

    def records(self, chunk: int, first: int, count: int) -> NDArray[np.uint16]:
        """The records of some scored tokens of a chunk, uint16[count, words]."""
        self._file.seek(self._start + (chunk * self.scored + first) * self._record)
        data = self._file.read(count * self._record)
        if len(data) != count * self._record:
            raise ValueError("the file of log-probabilities became shorter while it was read; make it again")
        return np.frombuffer(data, "<u2").astype(np.uint16, copy=False).reshape(count, self._record // 2)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> LogitFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LogitWriter:
    """Writes a file of log-probabilities inside a `with` block; without a path it does nothing."""

    def __init__(self, path: str | os.PathLike[str] | None, chunks: Chunks, vocab_size: int) -> None:
        if path is not None and chunks.step != chunks.context:
            raise ValueError("a file of log-probabilities has no overlapping chunks; leave out the stride")
        self._path, self._chunks, self._vocab_size = path, chunks, vocab_size
        self._record = _record_bytes(vocab_size)
        self._open = contextlib.ExitStack()
        self._file: BinaryIO | None = None

    def __enter__(self) -> LogitWriter:
        if self._path is not None:
            chunks = self._chunks
            self._file = self._open.enter_context(
                replacing(self._path, "a file of log-probabilities", _begins_so, ordinary=True)
            )
            self._file.write(_HEAD.pack(_MAGIC, chunks.context, self._vocab_size, chunks.count))
            self._file.write(chunks.tokens[: chunks.count * chunks.context].astype("<i4").tobytes())
        return self

    def write(self, chunk: int, first: int, records: NDArray[np.uint16]) -> None:
        """Write the records of some scored tokens of a chunk."""
        if self._file is None:
            raise ValueError("the file of log-probabilities is not open; write inside the with block")
        start = _HEAD.size + 4 * self._chunks.count * self._chunks.context
        self._file.seek(start + (chunk * self._chunks.scored + first) * self._record)
        self._file.write(records.astype("<u2", copy=False).tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)
