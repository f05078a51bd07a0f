"""Proposals by a smaller model with the same vocabulary."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from llamacpu.arguments import described
from llamacpu.drafting.draft import MOST_TOKENS, Draft, Drafter
from llamacpu.errors import ModelError
from llamacpu.sampling import log_probability

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, ModelLike, SessionLike

# A proposal ends where the draft model itself gives the whole of it less than this probability.
_LEAST_CHANCE = 0.3


class ModelDraft(Draft):
    """Proposes what a smaller model finds most likely.

    model: its vocabulary must be that of the model it drafts for (otherwise ModelError when a generation begins).
    It keeps what the model has read from one generation to the next, so pass the same object to each call of a
    conversation. Concurrent generations are served too.
    """

    follows_pictures: bool = False

    def __init__(self, model: ModelLike, max_tokens: int = MOST_TOKENS, adaptive: bool = True) -> None:
        if not hasattr(model, "session"):
            raise TypeError(f"model is {described(model)}; expected a Model, as in ModelDraft(Model(path))")
        super().__init__(max_tokens, adaptive)
        self.model = model
        # Whether nobody else uses the model.
        self.owned: bool = False
        # Taken and returned without a lock: a process forked at the wrong moment could wait for one forever.
        self._idle: deque[SessionLike] = deque(maxlen=1)
        self._checked: object = None

    def __repr__(self) -> str:
        """The draft model and the longest proposal."""
        return f"<ModelDraft of at most {self.max_tokens} tokens by {self.model!r}>"

    def check(self, session: SessionLike) -> None:
        """Raise ModelError unless both models have the same vocabulary."""
        if self._checked is not session.model:
            _check_vocabulary(self.model, session.model)
            self._checked = session.model

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """See `Draft.begin`; reads the prompt."""
        try:
            own = self._idle.pop()
        except IndexError:
            own = None
        if own is None or own.context != session.context:
            own = self.model.session(context=session.context)
        return _ModelDrafter(self, own, text, cancel)

    def close(self) -> None:
        """Forget what the model has read, and close a model that was opened for this."""
        self._idle.clear()
        close = getattr(self.model, "close", None)
        if self.owned and close is not None:
            close()

    def take_back(self, session: SessionLike) -> None:
        """Keep a session for the next generation."""
        self._idle.append(session)


class _ModelDrafter(Drafter):
    def __init__(self, owner: ModelDraft, session: SessionLike, text: list[int], cancel: CancelToken | None) -> None:
        self._owner = owner
        self._session = session
        self._text = text
        self._cancel = cancel
        # The context is `_first` and then the text from `_from` on.
        self._first: list[int] = []
        self._from = 0
        # The session holds `_sure` tokens of the context and then part of the last proposal.
        self._sure = 0
        self._proposed: list[int] = []
        self._begin()

    def propose(self, count: int) -> Sequence[int]:
        """The draft model's most likely tokens, as long as it is fairly sure of all of them."""
        size = self._size()
        if size + count - 1 > self._session.context:
            return []
        self._go_back()
        coming = self._tokens(self._sure)
        self._sure = size
        proposed: list[int] = []
        chance = 0.0
        while len(proposed) < count:
            logits = self._session.forward(coming, cancel=self._cancel)
            token = int(np.argmax(logits))
            if not np.isfinite(logits[token]):
                break
            chance += log_probability(logits, token).log_probability
            if chance < math.log(_LEAST_CHANCE):
                break
            proposed.append(token)
            coming = [token]
        self._proposed = proposed
        return proposed

    def shifted(self, tokens: Sequence[int]) -> None:
        """Start again with the shorter context."""
        self._first = list(tokens)
        self._from = len(self._text)
        self._begin()

    def close(self) -> None:
        """Give the session back."""
        self._owner.take_back(self._session)

    def _size(self) -> int:
        return len(self._first) + len(self._text) - self._from

    def _tokens(self, start: int) -> list[int]:
        """The tokens of the context from a position on."""
        first = self._first[start:]
        return first + self._text[self._from + max(start - len(self._first), 0) :]

    def _begin(self) -> None:
        """Read the context except for its last token, as far as the session does not hold it yet."""
        wanted = self._tokens(0)[:-1]
        same = 0
        for one, other in zip(self._session.tokens, wanted, strict=False):
            if one != other:
                break
            same += 1
        self._session.truncate(same)
        if wanted[same:]:
            self._session.forward(wanted[same:], logits="none", cancel=self._cancel)
        self._sure, self._proposed = len(wanted), []

    def _go_back(self) -> None:
        """Forget the proposed tokens that were not confirmed; at least one token of the context is left to read."""
        said = self._tokens(self._sure)
        same = 0
        for one, other in zip(said, self._proposed, strict=False):
            if one != other:
                break
            same += 1
        self._sure = min(self._sure + same, self._session.position, self._size() - 1)
        self._session.truncate(self._sure)
        self._proposed = []


def _check_vocabulary(draft: ModelLike, model: ModelLike) -> None:
    if draft.vocab_size != model.vocab_size:
        raise ModelError(
            f"the draft model has {draft.vocab_size} tokens and the model {model.vocab_size}; expected a draft model "
            "of the same family with the same vocabulary"
        )
    key = "tokenizer.ggml.tokens"
    ours, theirs = draft.metadata.strings(key), model.metadata.strings(key)
    if ours.data() == theirs.data():
        return
    for token, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if one != other:
            raise ModelError(
                f"token {token} is {one!r} to the draft model and {other!r} to the model; expected a draft model "
                "of the same family with the same vocabulary"
            )
