"""LoRA adapters in memory; see `llamacpu.engine.adapter_files` for what their files hold."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llamacpu.engine.adapter_files import AdapterFile, BaseModel, digest_of
from llamacpu.gguf.file import GGUFFile

if TYPE_CHECKING:
    from llamacpu import _native
    from llamacpu.families.config import Config
    from llamacpu.gguf.metadata import Metadata

__all__ = ["AdaptedModel", "Adapter"]


class AdaptedModel(Protocol):
    """What adapters need of their model."""

    _native: _native.Model

    @property
    def file(self) -> GGUFFile: ...
    @property
    def metadata(self) -> Metadata: ...
    @property
    def config(self) -> Config: ...
    @property
    def vocab_size(self) -> int: ...


class Adapter:
    """A LoRA adapter, opened for one model by `Model.adapter`; immutable, and shared by sessions and threads.

    path               the file
    alpha              of the file; 0 if the product of the matrices is not scaled
    rank               the largest rank of its matrices
    tensors            names of the model's tensors that it changes
    task_name          what it was trained for, as the file says; "" if it does not
    prompt_prefix      what it expects before a prompt, as the file says; "" if it does not
    invocation_tokens  for activated LoRA: the tokens from whose last occurrence on it applies; empty for all others
    digest             SHA-256 of the file, 32 bytes
    """

    def __init__(self, model: AdaptedModel, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        self._owner = weakref.ref(model)  # the model may hold the adapter
        with GGUFFile(path) as file:
            tensors = {tensor.name: tensor for tensor in model.file.tensors}
            architecture = model.metadata.scalar("general.architecture")
            base = BaseModel(model.file.path.name, architecture, tensors, model.vocab_size, model.config.output)
            header = AdapterFile(file, base)
            self.alpha: float = header.alpha
            self.task_name: str = header.task_name
            self.prompt_prefix: str = header.prompt_prefix
            self.invocation_tokens: tuple[int, ...] = header.invocation_tokens
            self.rank: int = max(pair.up.shape[0] for pair in header.pairs)
            self.tensors: tuple[str, ...] = tuple(pair.base for pair in header.pairs)
            self.digest: bytes = digest_of(file)
            rows = [
                (t.name, t.type, t.shape, t.file, t.offset, t.nbytes)
                for pair in header.pairs
                for t in (pair.down, pair.up)
            ]
            pairs = [(pair.base, pair.down.name, pair.up.name, pair.factor) for pair in header.pairs]
            self._native: _native.Adapter = model._native.adapter(file.native_files, rows, pairs)

    @property
    def nbytes(self) -> int:
        """Size in memory in bytes."""
        return self._native.nbytes

    def __repr__(self) -> str:
        return f"<Adapter {self.path.name!r}: rank {self.rank}, {len(self.tensors)} tensors>"
