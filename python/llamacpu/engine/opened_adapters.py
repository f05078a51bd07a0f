"""The adapters and control vectors that a model has opened for its sessions."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from llamacpu.arguments import path as check_path
from llamacpu.engine.adapter_set import AdapterSet, ControlVectorUse, LoraUse
from llamacpu.engine.adapters import Adapter
from llamacpu.engine.control_vectors import ControlVector
from llamacpu.engine.opened_model import OpenedModel

__all__ = ["OpenedAdapters"]


class OpenedAdapters(OpenedModel):
    """The part of a model that opens adapters and control vectors, and keeps those of its sessions."""

    def _open_adapters(
        self, lora: Iterable[LoraUse] | None, control_vectors: Iterable[ControlVectorUse] | None
    ) -> None:
        self._opened: WeakValueDictionary[tuple[Any, ...], Adapter | ControlVector] = WeakValueDictionary()
        self._adapters = AdapterSet.of(self, lora, control_vectors)

    def _adapters_of(
        self, lora: Iterable[LoraUse] | None, control_vectors: Iterable[ControlVectorUse] | None
    ) -> AdapterSet:
        """The adapters that these arguments mean; None stands for those that the model was opened with."""
        own = self._adapters
        if lora is None and control_vectors is None:
            return own
        return AdapterSet.of(
            self,
            own.lora if lora is None else lora,
            own.control_vectors if control_vectors is None else control_vectors,
        )

    @property
    def adapters(self) -> AdapterSet:
        """The adapters and control vectors that sessions go through by default; falsy if there are none."""
        return self._adapters

    def set_adapters(
        self,
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
    ) -> None:
        """Replace the adapters and control vectors that new sessions go through by default; None for none.

        Existing sessions keep theirs: see `Session.set_adapters`. Arguments and errors as in `session`.
        """
        self._adapters = AdapterSet.of(self, lora, control_vectors)

    def adapter(self, path: str | os.PathLike[str]) -> Adapter:
        """Read a LoRA adapter from a GGUF file, for sessions of this model.

        A file that is in use already is not read again. Raises `GGUFError` for a file that cannot be read, `ModelError`
        for one that is no LoRA adapter or belongs to another model.
        """
        check_path("path", path)
        found = self._opened.get(key := ("lora", *_identity(path)))
        if not isinstance(found, Adapter):
            found = self._opened[key] = Adapter(self, path)
        return found

    def control_vector(self, path: str | os.PathLike[str]) -> ControlVector:
        """Read a control vector from a GGUF file, for sessions of this model.

        Raises `GGUFError` for a file that cannot be read, `ModelError` for one that is no control vector or belongs to
        another model.
        """
        check_path("path", path)
        found = self._opened.get(key := ("vector", *_identity(path)))
        if not isinstance(found, ControlVector):
            found = self._opened[key] = ControlVector(self, path)
        return found


def _identity(path: str | os.PathLike[str]) -> tuple[object, ...]:
    """What tells whether two paths lead to the same contents."""
    try:
        found = Path(path).stat()
    except (OSError, ValueError):
        return (os.fspath(path),)  # opening it says what is wrong
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
