"""A GGUF file whose weights have been opened: what models and vision encoders have in common."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, TypeVar

from llamacpu.arguments import integer
from llamacpu.arguments import path as check_path
from llamacpu.gguf.file import GGUFFile
from llamacpu.locks import cached_property

__all__ = ["OpenedFile", "TensorRow"]

Self = TypeVar("Self", bound="OpenedFile")
TensorRow = tuple[str, int, tuple[int, ...], int, int, int]
"""A tensor as the native library takes it: name, type, shape, number of the file, offset and bytes."""


class NativeWeights(Protocol):
    """The weights in the native library."""

    @property
    def threads(self) -> int: ...
    @property
    def weight_bytes(self) -> int: ...
    @property
    def closed(self) -> bool: ...
    def close(self) -> None: ...


class OpenedFile:
    """A GGUF file and its weights. Subclasses set `_native`."""

    _native: NativeWeights

    def __init__(
        self,
        path: str | os.PathLike[str],
        overrides: Mapping[str, bool | int | float | str] | None = None,
    ) -> None:
        self._file = GGUFFile(path, overrides)

    @staticmethod
    def _check(path: object, threads: int | None) -> None:
        check_path("path", path)
        integer("threads", threads)
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; expected at least 1, or None for the machine's default")

    def _tensor_rows(self) -> list[TensorRow]:
        return [(t.name, t.type, t.shape, t.file, t.offset, t.nbytes) for t in self._file.tensors]

    @property
    def path(self) -> os.PathLike[str]:
        """The file that was opened."""
        return self._file.path

    @property
    def threads(self) -> int:
        """Number of threads in use."""
        return self._native.threads

    @cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that tell files apart, from their sizes, tensor tables and samples of weights."""
        from llamacpu.engine.fingerprints import fingerprint  # brings NumPy

        return fingerprint(self._file).hex()

    def close(self) -> None:
        """Release the weights. Work that is running finishes; later calls raise `LlamaCpuError`."""
        self._native.close()
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._native.closed

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
