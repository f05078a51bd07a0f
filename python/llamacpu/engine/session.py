"""One conversation with a model: its tokens, and their keys and values."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from llamacpu.engine.adapter_set import NO_ADAPTERS, AdapterSet, ControlVectorUse, LoraUse, fingerprint_of
from llamacpu.engine.duty import duty_of, working
from llamacpu.engine.interfaces import CancelToken, KVType, LentKeys, Logits, ModelLike, SavedPicture, TokenIds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu import _native

__all__ = ["Session"]


class Session:
    """One conversation with a model: its tokens, and their keys and values. Created by `Model.session()`."""

    def __init__(
        self,
        model: ModelLike,
        native: _native.Session,
        adapters: AdapterSet = NO_ADAPTERS,
        starts: Sequence[int | None] = (),
    ) -> None:
        self._model = model
        self._native = native
        self._adapters = adapters
        # Where the invocations of activated adapters begin, and whether that is known to be right for all tokens.
        self._starts: list[int | None] = list(starts) or [None] * len(adapters.lora)
        self._searched = False

    @property
    def model(self) -> ModelLike:
        """The model of the conversation."""
        return self._model

    @property
    def context(self) -> int:
        """The most tokens that the session may hold."""
        return self._native.context

    @property
    def position(self) -> int:
        """Number of tokens that have been processed; during a step, the number before it."""
        return self._native.position

    @property
    def tokens(self) -> list[int]:
        """The tokens that have been processed; during a step, those before it.

        Ids of `llamacpu.engine.pictures.FIRST_PICTURE_ID` and above stand for pictures.
        """
        return self._native.tokens

    @property
    def kv_type(self) -> KVType:
        """How keys and values are stored: "f32", "f16" or "q8_0"."""
        return cast(KVType, self._native.kv_type)

    @property
    def adapters(self) -> AdapterSet:
        """The adapters and control vectors that the tokens go through; falsy if there are none."""
        return self._adapters

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits for what computed the session: the model's own, or with those of its adapters."""
        return fingerprint_of(self._model, self._adapters)

    def set_adapters(
        self,
        lora: Iterable[LoraUse] | None = None,
        control_vectors: Iterable[ControlVectorUse] | None = None,
        cancel: CancelToken | None = None,
    ) -> None:
        """Replace the adapters and control vectors; arguments as in `Model.session`, None for none.

        The keys and values of tokens that went through something else are recomputed at once; the tokens stay. Raises
        what `Model.session` and `Model.step` raise, and then the session is as it was before.
        """
        model: Any = self._model
        self._change(AdapterSet.of(model, lora, control_vectors), cancel)

    def _change(self, adapters: AdapterSet, cancel: CancelToken | None = None) -> None:
        tokens = self.tokens
        starts = adapters.invocations(tokens) if adapters.is_activated else []
        self._native = self._recomputed(adapters, starts, tokens, cancel)
        self._adapters, self._starts = adapters, starts or [None] * len(adapters.lora)

    def _recomputed(
        self, adapters: AdapterSet, starts: list[int | None], tokens: list[int], cancel: CancelToken | None
    ) -> _native.Session:
        """A copy of the native session whose tokens have all gone through these adapters."""
        model: Any = self._model
        native = self._native.fork()
        kept = adapters.apply(native, starts)
        if kept < len(tokens):
            pictures = model._native.pictures(self._native, kept)
            with working(duty_of(model), cancel):
                model._native.step([(native, tokens[kept:], pictures)], "none", cancel)
        return native

    def before_step(self, ids: TokenIds, cancel: CancelToken | None = None) -> _native.Session:
        """The native session that a step with these tokens continues.

        Activated adapters apply from the last occurrence of their invocation on. Where the new tokens complete one, or
        `truncate` took one away, tokens that went through something else are recomputed.
        """
        if self._adapters.is_activated:
            longest = max(len(adapter.invocation_tokens) for adapter, _ in self._adapters.lora)
            tokens = self._native.tokens
            known = max(0, len(tokens) - longest + 1) if self._searched else 0
            found = self._adapters.invocations([*tokens[known:], *ids])
            starts = [
                old if new is None and self._searched else None if new is None else known + new
                for old, new in zip(self._starts, found, strict=True)
            ]
            if starts != self._starts:
                self._native = self._recomputed(self._adapters, starts, tokens, cancel)
                self._starts = starts
            self._searched = True
        return self._native

    def set_first_part(self, tokens: int) -> None:
        """Declare the tokens after the first `tokens` ones a second text; call this before they are processed.

        Models with token types (BERT) tell the two apart.
        """
        self._native.set_first_part(tokens)

    @property
    def nbytes(self) -> int:
        """Bytes of keys and values; pages shared with forks are counted in each of them.

        During a step, the size before it.
        """
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
        """Append the tokens `ids` to the conversation; arguments, result and errors as in `Model.step`."""
        return self._model.step([(self, ids)], logits, cancel)[0]

    def hidden(
        self, ids: TokenIds, layers: Sequence[int] = (-1,), cancel: CancelToken | None = None
    ) -> NDArray[np.float32]:
        """Append the tokens `ids` to the conversation and return their hidden states.

        Returns float32[layers, tokens, width]; `layers` and errors as in `Model.step_hidden`.
        """
        return self._model.step_hidden([(self, ids)], layers, cancel=cancel)[0].hidden

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the conversation to a file, from which `Model.load_session` continues it exactly, bit for bit.

        The file holds the tokens and their keys and values, about `nbytes` bytes. It replaces an older one
        atomically, and only its owner may read it, since anyone with the vocabulary can read the conversation in it.
        A symbolic link is followed. Of pictures, it holds their keys and values, but not the pictures themselves: a
        loaded session that is rewound so far that some must be read again needs them once more. Raises FileExistsError
        if something other than a saved session would be lost, another OSError if the file cannot be written,
        RuntimeError while the session is being stepped.
        """
        from llamacpu.engine import saved_sessions

        saved_sessions.save(self, path)

    def page(self, index: int) -> bytes:
        """The keys and values of a page of tokens, for saved sessions (`llamacpu.engine.saved_sessions`)."""
        model: Any = self._model
        with working(duty_of(model)):
            model._native.complete(self._native)
        return self._native.page(index)

    def saved_pictures(self) -> list[SavedPicture]:
        """What is known of the pictures among the tokens, for saved sessions."""
        return self._native.saved_pictures()

    def fork(self) -> Session:
        """Create a second conversation with the same past. It shares the memory, so a fork costs almost nothing."""
        return Session(self._model, self._native.fork(), self._adapters, self._starts)

    def lend(self) -> LentKeys:
        """The keys and values so far, for a drafter to see, as a native session that shares their memory.

        Let go of it before the session goes on: a step copies the pages that it would change and that are still shared.
        """
        return self._native.fork()

    def truncate(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens, to continue from there.

        Layers with a window keep what the last 128 tokens need, recurrent layers what the last few need and their
        states at some earlier positions. A session that is rewound further recomputes tokens in its next step, with the
        same results.
        """
        if tokens < 0:
            raise ValueError(f"cannot truncate the session to {tokens} tokens; expected 0 to {self.position}")
        self._native.truncate(tokens)
        self._searched = False

    def resume_point(self, tokens: int) -> int:
        """Return the largest position, up to `tokens`, to which the session can be truncated without recomputation.

        That is `tokens`, except where a window has left the tokens before it behind, or recurrent layers have no state
        for it: they keep those of a few positions, and what the last tokens need. Raises ValueError if the session has
        fewer tokens, RuntimeError while it is being stepped.
        """
        if tokens < 0:
            raise ValueError(f"cannot truncate the session to {tokens} tokens; expected 0 to {self.position}")
        return self._native.resume_point(tokens)

    def __repr__(self) -> str:
        return f"<Session: {self.position} of {self.context} tokens, {self._model!r}>"
