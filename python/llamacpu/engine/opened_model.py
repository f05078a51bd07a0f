"""The model in a file: its configuration, and its weights as the system's memory allows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from llamacpu import _native, log
from llamacpu.arguments import described
from llamacpu.engine.duty import DutyCycle, working
from llamacpu.engine.interfaces import CancelToken, Load, LoadProgress
from llamacpu.engine.opened_file import OpenedFile
from llamacpu.engine.room import Room
from llamacpu.families.memory import amount
from llamacpu.families.registry import config_for
from llamacpu.files import is_file
from llamacpu.gguf.file import GGUFFile, Metadata
from llamacpu.locks import cached_property
from llamacpu.store.manifests import Preset

if TYPE_CHECKING:
    from pathlib import Path

    from llamacpu.families.config import Config
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["OpenedModel"]


class OpenedModel(OpenedFile):
    """The part of a model that finds its file, reads what it says, and brings weights into memory."""

    _native: _native.Model
    _duty: DutyCycle | None = None

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None,
        overrides: Mapping[str, bool | int | float | str] | None,
        load: Load,
    ) -> None:
        self._check(path, threads)
        if overrides is not None and not isinstance(overrides, Mapping):
            raise TypeError(f"overrides is {described(overrides)}; expected a dict of metadata keys to values")
        if load not in ("map", "copy"):
            raise ValueError(f'load is {load!r}; expected "map" or "copy"')
        self._preset = Preset()
        self._memory_note: str | None = None
        # The vision encoder that came with the model's name.
        self._projector: Path | None = None
        if isinstance(path, str) and path and not is_file(path):
            # Imported here: most models are opened by their path.
            from llamacpu.store.resolve import resolve

            entry = resolve(path)
            path, self._preset = entry.path, entry.preset
            self._projector = entry.projector if entry.repository or entry.manifest else None
        super().__init__(path, overrides)
        try:
            self._config = config_for(self._file)
            self._room = Room(self._file, self._config)
            if load == "copy":
                self._check_room()
                self._file.keep()
                _ = self.fingerprint
            self._native = _native.Model(
                self._file.native_files, dict(self._config), self._tensor_rows(), threads, load
            )
        except BaseException:
            self._file.close()
            raise
        if self._native.unread_tensors:
            log.warning(
                "%s: tensors that nothing uses: %s", self._file.path.name, ", ".join(self._native.unread_tensors)
            )

    def _check_room(self) -> None:
        room = self._room
        if room.free is not None and room.weights > room.free:
            raise MemoryError(
                f"{self._file.path.name}: the weights take {amount(room.weights)}, and {amount(room.free)} of memory "
                f'are free; with load="map" {room.from_disk()}'
            )

    def _limit_memory(self) -> None:
        """Leave weights on disk for which there is no memory."""
        room = self._room
        if room.limit is None:
            return
        left = self._native.limit_memory(room.limit)
        if left:
            self._memory_note = (
                f"{self._file.path.name}: the weights take {amount(room.weights)}, and {amount(room.free or 0)} of "
                f"memory are free: {amount(left)} of them stay on disk; {room.from_disk()}"
            )
            log.warning("%s", self._memory_note)

    @property
    def duty(self) -> DutyCycle | None:
        """The limit on the share of time in which the model computes; None for no limit."""
        return self._duty

    @property
    def memory_note(self) -> str | None:
        """A line about weights that stay on disk for lack of memory; None if all of them fit."""
        return self._memory_note

    def prepare(self, on_load: LoadProgress | None = None, cancel: CancelToken | None = None) -> None:
        """Read all weights and arrange them as the kernels need them, which takes about as long as reading the file.

        This is optional: opening a model maps or copies its file, and the first step does the same for each matrix
        that it uses. After `prepare`, that step takes no longer than later ones.

        on_load  (bytes of the file that are done, bytes of all weights): called before the first and after every layer
        cancel   stops it from another thread or after a timeout: `Cancelled` is raised, and finished parts stay ready
        """
        parts = self._native.part_bytes()
        done, total = 0, sum(parts)
        if on_load is not None:
            on_load(0, total)
        for part, size in enumerate(parts):
            with working(self._duty, cancel):
                self._native.prepare(part, cancel)
            done += size
            if on_load is not None:
                on_load(done, total)

    @property
    def file(self) -> GGUFFile:
        """The header of the file: metadata and tensor table."""
        return self._file

    @property
    def preset(self) -> Preset:
        """The settings that came with the model, if it was opened by name and has some."""
        return self._preset

    @property
    def metadata(self) -> Metadata:
        """The file's metadata, a mapping of keys to values."""
        return self._file.metadata

    @property
    def config(self) -> Config:
        """The sizes and switches derived from the metadata: as fields, or by name as in a dict."""
        return self._config

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back, from the vocabulary in the file; created at first use."""
        from llamacpu.text.tokenizer import Tokenizer

        return Tokenizer(self._file)

    @property
    def vocab_size(self) -> int:
        """Number of logits per token."""
        return self._config.vocab_size

    @property
    def context_length(self) -> int:
        """Tokens of context that the model was trained for; the default of a session."""
        return self._config.context_length

    @property
    def threads_reason(self) -> str:
        """Why that number of threads was chosen."""
        return self._native.threads_reason

    @property
    def isa(self) -> str:
        """Name of the instruction set in use."""
        return self._native.isa

    @property
    def mapped(self) -> bool:
        """Whether the files are memory-mapped: not with load="copy", nor where their file system cannot do it."""
        return self._native.mapped

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one token passes through (counting all experts)."""
        return self._native.weight_bytes

    def __repr__(self) -> str:
        return f"<Model {self._file.path.name!r}: {self._config.architecture}, {self._config.layers} layers>"
