"""The engine: the weights of a file and the steps through them. `llamacpu.Model` adds the layers above it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, cast, overload

from llamacpu.arguments import function, integer
from llamacpu.engine.adapter_set import NO_ADAPTERS, AdapterSet, ControlVectorUse, LoraUse
from llamacpu.engine.duty import Duty, cycle_of, working
from llamacpu.engine.interfaces import (
    CancelToken,
    KVType,
    Load,
    LoadProgress,
    Logits,
    SavedPicture,
    SessionLike,
    StepOutput,
    TokenIds,
)
from llamacpu.engine.opened_adapters import OpenedAdapters
from llamacpu.engine.priority import Priority, set_priority
from llamacpu.engine.read_ahead import ReadAhead, ranges_in_order
from llamacpu.engine.session import Session
from llamacpu.engine.step_items import item_of
from llamacpu.engine.step_output import ends_of, places_of, split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


__all__ = ["EngineModel"]


class EngineModel(OpenedAdapters):
    """The weights of a GGUF file, located and checked, with the threads that run them; see `llamacpu.Model`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        threads: int | None = None,
        on_load: LoadProgress | None = None,
        *,
        overrides: Mapping[str, bool | int | float | str] | None = None,
        load: Load = "map",
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
        priority: Priority | None = None,
        duty: Duty = None,
    ) -> None:
        function("on_load", on_load)
        self._duty = cycle_of(duty)
        self._read_ahead = ReadAhead([], [])
        if priority is not None:
            set_priority(priority)
        super().__init__(path, threads, overrides, load)
        try:
            self._open_adapters(self.preset.adapters if lora is None else lora, control_vectors)
            self._limit_memory()
            if self.mapped and self._room.limit is None:
                self._read_ahead = ReadAhead(self._file.paths, ranges_in_order(self._file.tensors))
            if on_load is not None:
                self.prepare(on_load)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the weights. Running steps finish; later ones raise `LlamaCpuError`."""
        self._read_ahead.stop()
        super().close()

    def session(
        self,
        context: int | None = None,
        kv_type: KVType = "f16",
        *,
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
    ) -> Session:
        """Start a conversation.

        context  the most tokens it may hold; `None` for num_ctx of the model's settings, or else the length it was
                 trained for. Memory is allocated as the conversation grows, not before.
        kv_type  how keys and values are stored: "f32" exactly, "f16" in half the memory, "q8_0" in about a quarter
        lora     LoRA adapters that the tokens go through: paths of files or `Adapter`s, each alone or with a scale as
                 [(path, scale), ...]; their changes are added in this order. `None` for those that the model was opened
                 with, [] for none
        control_vectors  vectors added to the residual stream: [(path, strength, (first, last)), ...] with the first and
                 the last layer that one is added after, counted from 0; both may be left out. `None` as above

        Sessions with different adapters can be continued in one step. Raises GGUFError and ModelError for a file that
        cannot be read or belongs to another model.
        """
        integer("context", context)
        if context is not None and context < 1:
            raise ValueError(f"context is {context}; expected at least 1, or None for the length of the training")
        adapters = self._adapters_of(lora, control_vectors)
        native = self._native.session(context or self._preset.context, kv_type)
        if adapters:
            adapters.apply(native)
        return Session(self, native, adapters)

    @overload
    def step(
        self,
        items: Iterable[tuple[SessionLike, TokenIds]],
        logits: Literal["last", "all"] = "last",
        cancel: CancelToken | None = None,
    ) -> list[NDArray[np.float32]]: ...
    @overload
    def step(
        self, items: Iterable[tuple[SessionLike, TokenIds]], logits: Literal["none"], cancel: CancelToken | None = None
    ) -> list[None]: ...
    @overload
    def step(
        self, items: Iterable[tuple[SessionLike, TokenIds]], logits: Logits, cancel: CancelToken | None = None
    ) -> list[NDArray[np.float32]] | list[None]: ...
    def step(
        self,
        items: Iterable[tuple[SessionLike, TokenIds]],
        logits: Logits = "last",
        cancel: CancelToken | None = None,
    ) -> list[NDArray[np.float32]] | list[None]:
        """Continue several sessions in one pass over the weights.

        items   sessions of this model, each once, with the ids of the tokens that continue it; for pictures among them
                `MixedTokens`, or a list of its parts
        logits  what is returned per item. "last": float32[vocabulary], for its last token;
                "all": float32[tokens, vocabulary]; "none": None
        cancel  stops the step from another thread or after a timeout: `Cancelled` is raised

        No bit of a token's logits depends on the other items, on how a prompt is split into calls, or on the number of
        threads. Raises `ContextOverflow` if an item does not fit, ValueError for ids outside the vocabulary,
        RuntimeError for a session that another thread is stepping. After any error, Ctrl-C included, every session is
        as it was before the call.
        """
        native = [item_of(session, ids, cancel) for session, ids in items]
        with working(self._duty, cancel):
            rows = self._native.step(native, logits, cancel)
        found: list[NDArray[np.float32]] | list[None] = split(rows, [len(item[1]) for item in native], logits)
        return found

    def step_hidden(
        self,
        items: Iterable[tuple[SessionLike, TokenIds]],
        layers: Sequence[int] = (-1,),
        logits: Logits = "none",
        cancel: CancelToken | None = None,
    ) -> list[StepOutput]:
        """Run `step` and also return the hidden states of every token.

        layers  which states: 0 is the residual stream after the first layer, `config["layers"]` - 1 after the last
                one, and `config["layers"]` the output of the final norm, from which logits and embeddings are computed.
                Negative indices count from the end: -1 is the final norm, -2 the last layer.

        The array takes layers * tokens * width * 4 bytes; MemoryError if there is no memory for it. As with logits,
        batching, splitting and threads change no bit of it. Raises ValueError for no layers and for a layer that does
        not exist or is named twice, and what `step` raises.
        """
        places = places_of(layers, self._config.layers + 1)
        native = [item_of(session, ids, cancel) for session, ids in items]
        with working(self._duty, cancel):
            rows, hidden = self._native.step_hidden(native, places, logits, cancel)
        counts = [len(item[1]) for item in native]
        parts = [hidden[:, start:end] for start, end in pairwise(ends_of(counts))]
        return [StepOutput(row, part) for row, part in zip(split(rows, counts, logits), parts, strict=True)]

    def step_squares(
        self, items: Iterable[tuple[SessionLike, TokenIds]], logits: bool = False, cancel: CancelToken | None = None
    ) -> tuple[NDArray[np.float32], list[tuple[int, int, int, NDArray[np.float64]]]]:
        """Run `step`, every token through all layers, and return what importance matrices are made from.

        logits  whether those of every token are returned, too: float32[tokens, vocabulary]; if not, it has no rows

        Of each matrix that was used: index of its file, its offset there in bytes, the number of its inputs, and the
        sum over these of the squares of every element, float64[columns], added in the order of the tokens. Threads
        change no bit of it. Raises what `step` raises.
        """
        native = [item_of(session, ids, cancel) for session, ids in items]
        with working(self._duty, cancel):
            return self._native.step_squares(native, "all" if logits else "none", cancel)

    def classify(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores that the model's classifier gives to states after the final norm.

        states: float32[rows, width], for BERT and DeBERTa those of the first token of each text. Returns
        float32[rows, classes], before any softmax. Raises ModelError for a model without a classifier, ValueError for
        states of another width.
        """
        import numpy

        states = numpy.ascontiguousarray(states, dtype=numpy.float32)
        width = self._config.embedding_length
        if states.ndim != 2 or states.shape[1] != width:
            raise ValueError(f"the states have the shape {states.shape}; expected rows of {width} numbers")
        with working(self._duty):
            return self._native.classify(states)

    def load_session(
        self,
        path: str | os.PathLike[str],
        context: int | None = None,
        *,
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
    ) -> Session:
        """Continue a conversation that `Session.save` wrote.

        context  the most tokens it may hold; `None` for the value it was saved with
        lora, control_vectors  as in `session`; they must be those that the conversation was computed with

        Raises `SessionError` for a file that is damaged, is not a saved session, or belongs to another model or a newer
        version; `ContextOverflow` if the conversation is longer than `context`; OSError if there is no such file.
        """
        from llamacpu.engine import saved_sessions

        adapters = self._adapters_of(lora, control_vectors)
        return cast(Session, saved_sessions.load(self, path, context, adapters))

    def page_bytes(self, kv_type: KVType) -> int:
        """Bytes of a page of keys and values, all layers together; for saved sessions."""
        return self._native.page_bytes(kv_type)

    def cross_page_bytes(self, kv_type: KVType) -> int:
        """Bytes of a page of the keys and values that cross-attention sees; 0 for models without."""
        return self._native.cross_page_bytes(kv_type)

    def restore(
        self,
        context: int,
        kv_type: KVType,
        tokens: TokenIds,
        pages: Iterable[bytes],
        adapters: AdapterSet = NO_ADAPTERS,
        pictures: Sequence[SavedPicture] = (),
    ) -> Session:
        """A session that holds these tokens, with their keys and values in pages; for saved sessions.

        adapters  what the tokens have gone through
        pictures  what is known of the pictures among the tokens, as `Session.saved_pictures` gives it

        Raises ValueError for tokens and pages that do not match.
        """
        native = self._native.restore(context, kv_type, tokens, pages, pictures)
        starts = adapters.invocations(tokens) if adapters.is_activated else []
        if adapters:
            adapters.declare(native, starts)
        return Session(self, native, adapters, starts)
