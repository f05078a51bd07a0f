"""A session and a model for generation, answers and tasks whose steps are gathered by the scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, overload

from llamacpu.engine.adapter_set import (
    NO_ADAPTERS,
    AdapterSet,
    ControlVectorUse,
    LoraUse,
    adapters_of,
    fingerprint_of,
)
from llamacpu.engine.interfaces import (
    CancelToken,
    KVType,
    LentKeys,
    LoadProgress,
    Logits,
    ModelLike,
    SavedPicture,
    SessionLike,
    StepOutput,
    TokenIds,
    preset_of,
)
from llamacpu.scheduler.hidden import run_hidden
from llamacpu.scheduler.jobs import Job, Slot
from llamacpu.scheduler.memory import Memory
from llamacpu.scheduler.pages import PageList
from llamacpu.scheduler.scheduler import IN_USE, Scheduler
from llamacpu.store.manifests import Preset

if TYPE_CHECKING:
    import os

    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.families.config import Config
    from llamacpu.gguf.metadata import Metadata
    from llamacpu.multimodal.vision import Vision
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["ScheduledModel", "ScheduledSession"]


class ScheduledSession:
    """A session whose `forward` waits for its turn in a step that it shares with others.

    Methods and errors are those of `llamacpu.Session`; only one thread at a time may use a session, but different
    sessions may be used by different threads.
    """

    def __init__(self, model: ScheduledModel, scheduler: Scheduler, slot: Slot) -> None:
        """Use `ScheduledModel.session`."""
        self._model = model
        self._scheduler = scheduler
        self.slot = slot

    @property
    def model(self) -> ScheduledModel:
        """The model of the session, whose steps are scheduled too."""
        return self._model

    @property
    def context(self) -> int:
        """The most tokens that the session may hold."""
        return self.slot.native.context

    @property
    def position(self) -> int:
        """The number of processed tokens; during a step, the number before that step."""
        return self.slot.native.position

    @property
    def tokens(self) -> list[int]:
        """The processed tokens; during a step, those before that step."""
        return self.slot.native.tokens

    @property
    def kv_type(self) -> KVType:
        """How keys and values are stored."""
        return self.slot.native.kv_type

    @property
    def adapters(self) -> AdapterSet:
        """The adapters and control vectors that the tokens go through; falsy if there are none."""
        return adapters_of(self.slot.native)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits for what computes the session: the model with its adapters."""
        return fingerprint_of(self._model, self.adapters)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values; pages shared with other sessions are counted in each of them."""
        return self.slot.native.nbytes

    @overload
    def forward(
        self, ids: TokenIds, logits: Literal["last", "all"] = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32]: ...
    @overload
    def forward(self, ids: TokenIds, logits: Literal["none"], cancel: CancelToken | None = None) -> None: ...
    def forward(
        self, ids: TokenIds, logits: Logits = "last", cancel: CancelToken | None = None
    ) -> NDArray[np.float32] | None:
        """Extend the session by the tokens `ids`; arguments, result and errors are those of `Model.step`."""
        return self._model.step([(self, ids)], logits, cancel)[0]

    def hidden(
        self, ids: TokenIds, layers: Sequence[int] = (-1,), cancel: CancelToken | None = None
    ) -> NDArray[np.float32]:
        """Extend the session by the tokens `ids` and return their hidden states: float32[layers, tokens, width]."""
        return self._model.step_hidden([(self, ids)], layers, cancel=cancel)[0].hidden

    def fork(self) -> ScheduledSession:
        """Return a second session with the same past, sharing its memory."""
        with self._scheduler.changed:
            slot = self._idle()
            fork = Slot(slot.native.fork(), slot.pages.fork(), slot.client)
            fork.pictures = list(slot.pictures)
            return ScheduledSession(self._model, self._scheduler, fork)

    def lend(self) -> LentKeys:
        """Return the keys and values so far, for a drafter to see; see `llamacpu.Session`."""
        with self._scheduler.changed:
            return self._idle().native.lend()

    def truncate(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens."""
        with self._scheduler.changed:
            slot = self._idle()
            slot.native.truncate(tokens)
            slot.pages.truncate(tokens)

    def set_first_part(self, tokens: int) -> None:
        """Treat the tokens after the first `tokens` as a second text; see `llamacpu.Session`."""
        self.slot.native.set_first_part(tokens)

    def page(self, index: int) -> bytes:
        """Return the keys and values of a page of tokens, for saved sessions."""
        return self.slot.native.page(index)

    def saved_pictures(self) -> list[SavedPicture]:
        """Return what is known of the pictures among the tokens, for saved sessions."""
        return self.slot.native.saved_pictures()

    def _idle(self) -> Slot:
        if self.slot.busy:
            raise RuntimeError(IN_USE)
        return self.slot

    def __repr__(self) -> str:
        return f"<ScheduledSession: {self.position} of {self.context} tokens>"


class ScheduledModel:
    """A model whose steps are batched with those of all its other users; see `Engine.model`.

    Code written for a `Model` works with it unchanged: `generate`, answers, embeddings, moderation.
    """

    def __init__(self, model: ModelLike, scheduler: Scheduler, memory: Memory) -> None:
        """Use `Engine.model`."""
        self._model = model
        self._scheduler = scheduler
        self._memory = memory

    @property
    def path(self) -> os.PathLike[str]:
        """The file that was opened."""
        return self._model.path

    @property
    def preset(self) -> Preset:
        """The settings that came with the model."""
        return preset_of(self._model)

    @property
    def vision(self) -> Vision | None:
        """The vision encoder; None for a model without one."""
        return getattr(self._model, "vision", None)

    @property
    def metadata(self) -> Metadata:
        """The file's metadata, as a mapping from keys to values."""
        return self._model.metadata

    @property
    def config(self) -> Config:
        """The sizes and options derived from the metadata."""
        return self._model.config

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, which converts text to token ids and back."""
        return self._model.tokenizer

    @property
    def vocab_size(self) -> int:
        """The number of logits per token."""
        return self._model.vocab_size

    @property
    def context_length(self) -> int:
        """The context length that the model was trained for, in tokens."""
        return self._model.context_length

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that identify the model."""
        return self._model.fingerprint

    def prepare(self, on_load: LoadProgress | None = None, cancel: CancelToken | None = None) -> None:
        """Read all weights and bring them into the layout that the kernels need; see `Model.prepare`."""
        self._model.prepare(on_load, cancel)

    def session(
        self,
        context: int | None = None,
        kv_type: KVType = "f16",
        *,
        client: str = "",
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
    ) -> ScheduledSession:
        """Create an empty session; `client` is charged for its tokens if several clients share the model.

        lora, control_vectors  as for `Model.session`
        """
        if lora is None and control_vectors is None:
            return self._adopt(self._model.session(context, kv_type), kv_type, client)
        model: Any = self._model
        session: SessionLike = model.session(context, kv_type, lora=lora, control_vectors=control_vectors)
        return self._adopt(session, kv_type, client)

    @property
    def adapters(self) -> AdapterSet:
        """The adapters and control vectors that sessions go through by default; falsy if there are none."""
        return adapters_of(self._model)

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
        """Extend several sessions; arguments, result and errors are those of `Model.step`."""
        if logits not in ("last", "all", "none"):
            raise ValueError(f'logits is {logits!r}; expected "last", "all" or "none"')
        jobs = [Job(self._own(session).slot, ids, logits, cancel) for session, ids in items]
        found: list[Any] = self._scheduler.run(jobs)
        return found

    def step_hidden(
        self,
        items: Iterable[tuple[SessionLike, TokenIds]],
        layers: Sequence[int] = (-1,),
        logits: Logits = "none",
        cancel: CancelToken | None = None,
    ) -> list[StepOutput]:
        """Run `step` and also return hidden states; arguments, result and errors are those of `Model.step_hidden`."""
        pairs = [(self._own(session).slot, ids) for session, ids in items]
        return run_hidden(self._model, self._scheduler, self._memory, pairs, layers, logits, cancel)

    def classify(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the classifier's scores for hidden states; see `Model.classify`."""
        return self._model.classify(states)

    def page_bytes(self, kv_type: KVType) -> int:
        """Return the bytes of a page of keys and values, over all layers."""
        return self._model.page_bytes(kv_type)

    def cross_page_bytes(self, kv_type: KVType) -> int:
        """Return the bytes of a page of what cross-attention sees; 0 for models without."""
        return self._model.cross_page_bytes(kv_type)

    def restore(
        self,
        context: int,
        kv_type: KVType,
        tokens: TokenIds,
        pages: Iterable[bytes],
        adapters: AdapterSet = NO_ADAPTERS,
        pictures: Sequence[SavedPicture] = (),
    ) -> ScheduledSession:
        """Create a session that holds these tokens, with their keys and values in pages; for saved sessions."""
        model: Any = self._model
        further: dict[str, Any] = {"adapters": adapters} if adapters else {}
        further |= {"pictures": pictures} if pictures else {}
        return self._adopt(model.restore(context, kv_type, tokens, pages, **further), kv_type)

    def _adopt(self, native: SessionLike, kv_type: KVType, client: str = "") -> ScheduledSession:
        with self._scheduler.changed:
            pages = PageList(self._memory.counter(kv_type))
            pages.grow(0, native.position)
        return ScheduledSession(self, self._scheduler, Slot(native, pages, client))

    def _own(self, session: SessionLike) -> ScheduledSession:
        if not isinstance(session, ScheduledSession) or session.model is not self:
            raise TypeError(f"an item of the step is {session!r}; expected a session that this scheduled model made")
        return session

    def __repr__(self) -> str:
        return f"<ScheduledModel: {self._model!r}>"
