"""Models and conversations: token ids in, logits out.

    with llamacpu.Model("model.gguf") as model:
        session = model.session()
        logits = session.forward(model.tokenizer.encode("Once upon a time"))

A `Model` is immutable and may be shared by threads; a `Session` is one conversation and runs one step at a time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, overload

from llamacpu import _native
from llamacpu.architectures import config_for
from llamacpu.gguf_file import GGUFFile, Metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.tokenizer import Tokenizer

__all__ = ["CancelToken", "Model", "Session"]

log = logging.getLogger("llamacpu")

CancelToken = _native.CancelToken
Logits = Literal["last", "all", "none"]
KVType = Literal["f32", "f16", "q8_0"]
TokenIds = Sequence[int]


class Model:
    """The weights of a GGUF file, mapped and checked, with the threads that run them.

    path     a `.gguf` file; of a split model the first file
    threads  number of threads; `None` for what the machine gives (affinity, container quota, physical cores)

    Raises `GGUFError` for a file that cannot be read and `ModelError` for one that is no model this version runs.
    Use it as a context manager, or call `close()`, or let it go out of scope.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise ValueError(f"threads is {threads}; expected at least 1, or None for the machine's default")
        self._file = GGUFFile(path)
        try:
            self.config = config_for(self._file)
            rows = [(t.name, t.type, t.shape, t.file, t.offset, t.nbytes) for t in self._file.tensors]
            paths = [os.fspath(path) for path in self._file.paths]
            self._native = _native.Model(paths, self.config, rows, threads)
        except BaseException:
            self._file.close()
            raise
        if self._native.unread_tensors:
            log.warning(
                "%s: tensors that nothing uses: %s", self._file.path.name, ", ".join(self._native.unread_tensors)
            )

    @property
    def file(self) -> GGUFFile:
        """The header of the file: metadata and tensor table."""
        return self._file

    @property
    def path(self) -> os.PathLike[str]:
        """The file that was opened."""
        return self._file.path

    @property
    def metadata(self) -> Metadata:
        """The file's metadata, key to value."""
        return self._file.metadata

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """Text to token ids and back, from the vocabulary in the file; made at first use."""
        from llamacpu.tokenizer import Tokenizer

        return Tokenizer(self._file)

    @property
    def vocab_size(self) -> int:
        """Number of logits."""
        return int(self.config["vocab_size"])

    @property
    def context_length(self) -> int:
        """Tokens of context that the model was trained for: the default of a session."""
        return int(self.config["context_length"])

    @property
    def threads(self) -> int:
        """Number of threads in use."""
        return self._native.threads

    @property
    def threads_reason(self) -> str:
        """Why that number of threads."""
        return self._native.threads_reason

    @property
    def isa(self) -> str:
        """Name of the instruction set in use."""
        return self._native.isa

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights that one token goes through (all experts counted)."""
        return self._native.weight_bytes

    def session(self, context: int | None = None, kv_type: KVType = "f16") -> Session:
        """Starts a conversation.

        context  the most tokens it may hold; `None` for the length that the model was trained for. Memory is taken as
                 the conversation grows, not before.
        kv_type  how keys and values are stored: "f32" exact, "f16" half the memory, "q8_0" about a quarter
        """
        if context is not None and context < 1:
            raise ValueError(f"context is {context}; expected at least 1, or None for the length of the training")
        return Session(self, self._native.session(context, kv_type))

    @overload
    def step(
        self,
        items: Iterable[tuple[Session, TokenIds]],
        logits: Literal["last", "all"] = "last",
        cancel: CancelToken | None = None,
    ) -> list[NDArray[np.float32]]: ...
    @overload
    def step(
        self, items: Iterable[tuple[Session, TokenIds]], logits: Literal["none"], cancel: CancelToken | None = None
    ) -> list[None]: ...
    def step(
        self,
        items: Iterable[tuple[Session, TokenIds]],
        logits: Logits = "last",
        cancel: CancelToken | None = None,
    ) -> list[NDArray[np.float32]] | list[None]:
        """Continues several sessions in one pass over the weights.

        items   sessions of this model, each once, with the ids of the tokens that continue it
        logits  what is returned per item. "last": float32[vocabulary], for its last token;
                "all": float32[tokens, vocabulary]; "none": None
        cancel  stops the step from another thread or after a timeout: `Cancelled` is raised

        The logits of a token do not depend on the other items, on how a prompt is cut into calls, or on the number of
        threads, to the last bit. Raises `ContextOverflow` if an item does not fit, ValueError for ids outside the
        vocabulary, RuntimeError for a session that another thread is stepping. After any error, Ctrl-C included,
        every session is as it was before the call.
        """
        pairs = [(session._native, ids) for session, ids in items]
        rows = self._native.step(pairs, logits, cancel)
        if logits == "none":
            return [None] * len(pairs)
        if logits == "last":
            return list(rows)
        ends = [0]
        for _, ids in pairs:
            ends.append(ends[-1] + len(ids))
        return [rows[start:end] for start, end in pairwise(ends)]

    def generate(self, prompt: str | TokenIds, **settings: Any) -> Iterator[str]:
        """Yields the pieces of text that follow `prompt`; see `llamacpu.generation.generate` for the settings."""
        from llamacpu import generation

        pieces: Iterator[str] = generation.generate(self, prompt, **settings)
        return pieces

    def close(self) -> None:
        """Gives the weights back. Steps that are running finish; later ones raise `LlamaCpuError`."""
        self._native.close()
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether `close()` has been called."""
        return self._native.closed

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Model {self._file.path.name!r}: {self.config['architecture']}, {self.config['layers']} layers>"


class Session:
    """One conversation with a model: its tokens, and their keys and values. Made by `Model.session()`."""

    def __init__(self, model: Model, native: _native.Session) -> None:
        self._model = model
        self._native = native

    @property
    def model(self) -> Model:
        """The model of the conversation."""
        return self._model

    @property
    def context(self) -> int:
        """The most tokens that the session may hold."""
        return self._native.context

    @property
    def position(self) -> int:
        """Number of tokens that have been processed."""
        return self._native.position

    @property
    def tokens(self) -> list[int]:
        """The tokens that have been processed."""
        return self._native.tokens

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values; pages shared with forks are counted in each of them."""
        return self._native.nbytes

    @overload
    def forward(
        self, ids: TokenIds, logits: Literal["last", "all"] = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def forward(self, ids: TokenIds, logits: Literal["none"], cancel: CancelToken | None = None) -> None: ...
    def forward(
        self, ids: TokenIds, logits: Logits = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32] | None:
        """Continues the conversation by the tokens `ids`; arguments, result and errors as in `Model.step`."""
        return self._model.step([(self, ids)], logits, cancel)[0]

    def fork(self) -> Session:
        """A second conversation with the same past, whose memory is shared: it costs nearly nothing."""
        return Session(self._model, self._native.fork())

    def truncate(self, tokens: int) -> None:
        """Forgets all but the first `tokens` tokens, to go on from there."""
        if tokens < 0:
            raise ValueError(f"cannot truncate the session to {tokens} tokens; expected 0 to {self.position}")
        self._native.truncate(tokens)

    def __repr__(self) -> str:
        return f"<Session: {self.position} of {self.context} tokens, {self._model!r}>"
