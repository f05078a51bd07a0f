"""`Model`: what most programs open. The engine's model, with what is built upon it.

    with llamacpu.Model("model.gguf") as model:
        session = model.session()
        logits = session.forward(model.tokenizer.encode("Once upon a time"))

A `Model` is immutable and may be shared by threads; a `Session` is one conversation and runs one step at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from llamacpu.engine.interfaces import CancelToken, StepOutput, TokenIds
from llamacpu.engine.model import EngineModel
from llamacpu.engine.session import Session

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.generation import Generation
    from llamacpu.tasks.embeddings import Pooling
    from llamacpu.tasks.prefixes import Task

__all__ = ["CancelToken", "Model", "Session", "StepOutput"]


class Model(EngineModel):
    """The weights of a GGUF file, found and checked, with the threads that run them.

    path       a `.gguf` file; of a split model the first file
    threads    number of threads; `None` for what the machine gives (affinity, container quota, physical cores)
    on_load    (bytes done, bytes of weights): given, the weights are prepared at once and not by the first step that
               uses them, and this is told how far that is; see `prepare`
    overrides  metadata that takes the place of the file's, as in `GGUFFile`
    load       "map": the system reads the file's pages as they are needed, and copies where a file system cannot be
               mapped. "copy": all of the file is read at once into memory of the process, and what becomes of it
               afterwards has no effect

    Raises `GGUFError` for a file that cannot be read, `ModelError` for one that is no model this version runs and
    MemoryError where memory is short. A mapped file that is shortened or written to while it is used is a `ModelError`
    of the step that used it and of all later ones; renaming another file over it does no harm.
    Use it as a context manager, or call `close()`, or let it go out of scope.
    """

    @overload
    def embed(
        self, input: str | Sequence[str], pooling: Literal["mean", "cls", "last", "rank"] | None = None, *,
        normalize: bool = False, truncate: bool = True, task: Task | None = None, prefix: str | None = None,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32]: ...  # fmt: skip
    @overload
    def embed(
        self, input: str | Sequence[str], pooling: Literal["none"], *,
        normalize: bool = False, truncate: bool = True, task: Task | None = None, prefix: str | None = None,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]: ...  # fmt: skip
    def embed(
        self,
        input: str | Sequence[str],
        pooling: Pooling | None = None,
        *,
        normalize: bool = False,
        truncate: bool = True,
        task: Task | None = None,
        prefix: str | None = None,
        cancel: CancelToken | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]:
        """Embeddings of texts: of one, float32[width]; of several, float32[texts, width].

        pooling    how the states of the tokens behind the last norm become one: their "mean", the "last" or the first
                   one ("cls"). "rank": the scores of the model's classifier, float32[classes] a text, not normalized.
                   "none" returns the states of all tokens: float32[tokens, width], or a list of them. `None` for what
                   the file recommends; "mean" where it recommends nothing that makes one vector
        normalize  scale every embedding to the Euclidean length 1
        truncate   leave out what is longer than the model's context; otherwise that is a `ContextOverflow`

        task       "query" or "document": put before every text what the model wants before a question, or before what
                   may answer it. The file tells (sentence_transformers.prompts.query, ...), or the model's name;
                   ModelError where neither does
        prefix     put this before every text instead

        Several texts go through the model together. ValueError for an empty text if the model puts no start token
        before it: then there is nothing to embed.
        """
        from llamacpu.tasks import embeddings

        return embeddings.embed(
            self, input, pooling, normalize=normalize, truncate=truncate, task=task, prefix=prefix, cancel=cancel
        )

    def generate(self, prompt: str | TokenIds, **settings: Any) -> Generation:
        """Yields the pieces of text that follow `prompt`; see `llamacpu.generation.generate` for the settings."""
        from llamacpu import generation

        return generation.generate(self, prompt, **settings)
