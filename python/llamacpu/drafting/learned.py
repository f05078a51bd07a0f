"""Proposals by a drafter, a small network that was trained to continue what the model thinks.

It reads hidden states of the model, which the passes through the model return besides logits. The states of tokens that
are not confirmed are not read, so that a drafter never needs more than its own session to be cut back.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.arguments import described
from llamacpu.drafting.draft import MOST_TOKENS, Draft, Drafter
from llamacpu.drafting.lent import LentDrafter, likely
from llamacpu.drafting.states import WaitingStates
from llamacpu.engine.drafter import DraftSession, EngineDrafter
from llamacpu.errors import ModelError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken, SessionLike
    from llamacpu.engine.model import EngineModel

__all__ = ["LearnedDraft"]

# A proposal ends where the drafter itself gives the whole of it less than this probability.
_LEAST_CHANCE = 0.3
# So many states may wait to be read while nothing is proposed; reading many together is cheaper.
_MOST_WAITING = 256


class LearnedDraft(Draft):
    """Proposes what a drafter finds most likely: DFlash, EAGLE-3, multi-token prediction, or Gemma 4's assistant.

    model: the model it drafts for. path: the drafter's file, or "self" for the layers for multi-token prediction in the
    file of the model. threads: those of the drafter; None for as many as the model has. least_chance: a proposal ends
    where the drafter gives all of it together less than this probability.

    It keeps what the drafter has read from one generation to the next, so pass the same object to each call of a
    conversation. Concurrent generations are served too. The first token of a prompt that is known from before
    (`Session` reuse, prefix caches) is where the drafter begins to read. Raises GGUFError for a file that cannot be
    read, ModelError for one that is no drafter, or one of another model.
    """

    reads_states: bool = True

    def __init__(
        self,
        model: EngineModel,
        path: str | os.PathLike[str] = "self",
        max_tokens: int = MOST_TOKENS,
        adaptive: bool = True,
        *,
        threads: int | None = None,
        least_chance: float = _LEAST_CHANCE,
    ) -> None:
        if not hasattr(model, "step_hidden") or not hasattr(model, "file"):
            raise TypeError(f"model is {described(model)}; expected the Model that the drafter was made for")
        if not 0 <= least_chance <= 1:
            raise ValueError(f"least_chance is {least_chance}; expected a probability, 0 to 1")
        super().__init__(max_tokens, adaptive)
        self.drafter: EngineDrafter = EngineDrafter(path, model, threads)
        if self.drafter.plan.block:
            self.max_tokens: int = min(max_tokens, self.drafter.plan.block - 1)
        self.follows_pictures: bool = bool(self.drafter.plan.block) or self.drafter.plan.borrows
        self.least_chance: float = least_chance
        # Taken and returned without a lock: a process forked at the wrong moment could wait for one forever.
        self._idle: deque[_Reader] = deque(maxlen=1)
        self._checked: object = None

    def __repr__(self) -> str:
        """The drafter and the longest proposal."""
        return f"<LearnedDraft of at most {self.max_tokens} tokens by {self.drafter!r}>"

    def check(self, session: SessionLike) -> None:
        """Raise ModelError unless the session belongs to the model that the drafter was opened for."""
        if self._checked is session.model:
            return
        if not self.drafter.serves(session.model.fingerprint):
            raise ModelError(
                f"{self.drafter!r} was opened for another model than {session.model!r}; open it again for this one"
            )
        self._checked = session.model

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """See `Draft.begin`."""
        if self.drafter.plan.borrows:
            return LentDrafter(self.drafter, self.least_chance, session, text, cancel)
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = None
        if reader is None or reader.context != session.context or reader.kv_type != session.kv_type:
            reader = _Reader(self.drafter, session)
        reader.follow(session.tokens)
        kind = _BlockDrafter if self.drafter.plan.block else _TokenDrafter
        return kind(self, reader, session, text, cancel)

    def _take_back(self, reader: _Reader) -> None:
        """Keep what was read for the next generation."""
        self._idle.append(reader)

    def close(self) -> None:
        """Release the drafter's weights; nothing can be proposed afterwards."""
        self._idle.clear()
        self.drafter.close()


class _Reader:
    """The drafter's session, and the states that it has not read yet.

    The session has one row for each position of the model's session from `first` on; the positions before had been
    computed before the drafter was there.
    """

    def __init__(self, drafter: EngineDrafter, session: SessionLike) -> None:
        self.drafter = drafter
        self.context = session.context
        self.kv_type = session.kv_type
        room = session.context + max(drafter.plan.block, MOST_TOKENS + 1)
        self.own: DraftSession = drafter.session(room, session.kv_type)
        self.first = 0
        self.waiting = WaitingStates()
        # The ids at all positions before those that wait.
        self._read: list[int] = []

    def follow(self, tokens: Sequence[int]) -> None:
        """Keep what belongs to a session of the model that holds `tokens`."""
        same = 0
        for one, other in zip([*self._read, *self.waiting.ids], tokens, strict=False):
            if one != other:
                break
            same += 1
        if same < self.first:
            self._begin(tokens)
        else:
            self.cut(same)
            if same < len(tokens):
                self._begin(tokens)

    def observe(self, session: SessionLike, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Take the states of `ids`, which the model's session has at `position` and after."""
        if position > self.waiting.end or position < self.first:
            self._begin(session.tokens[:position])
        else:
            self.cut(position)
        self.waiting.add(ids, states)

    def cut(self, position: int) -> None:
        """Forget everything from a position of the model's session on."""
        self.waiting.cut(position)
        if position < self.waiting.start:
            self.waiting.start = position
            del self._read[position:]
        rows = max(self.waiting.start - self.first, 0)
        if self.own.position > rows:
            self.own.truncate(rows)

    def read(self) -> tuple[list[int], NDArray[np.float32] | None]:
        """The ids and states that waited, as they are read now."""
        ids, states = self.waiting.take()
        self._read += ids
        return ids, states

    def lose(self) -> None:
        """Begin after what was read last, which no drafter can use."""
        self._begin(self._read)

    def _begin(self, tokens: Sequence[int]) -> None:
        """Begin after `tokens`, whose states are not known."""
        self.own.truncate(0)
        self.first = len(tokens)
        self._read = list(tokens)
        self.waiting = WaitingStates(self.first)


class _StateDrafter(Drafter):
    """What both kinds share."""

    def __init__(
        self,
        owner: LearnedDraft,
        reader: _Reader,
        session: SessionLike,
        text: list[int],
        cancel: CancelToken | None,
    ) -> None:
        self._owner = owner
        self._drafter = owner.drafter
        self._reader = reader
        self._session = session
        self._text = text
        self._cancel = cancel

    @property
    def layers(self) -> tuple[int, ...]:
        """The states that the drafter reads."""
        return self._drafter.places

    def observe(self, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """See `Drafter.observe`."""
        waiting = self._reader.waiting
        if len(waiting.ids) >= _MOST_WAITING and self._reader.first <= position <= waiting.end:
            self._reader.cut(position)
            self.read(ids[0])
        self._reader.observe(self._session, position, ids, states)

    @abstractmethod
    def read(self, following: int) -> None:
        """Read the waiting states; `following` is the token after them."""

    def close(self) -> None:
        """Keep what was read for the next generation."""
        self._reader.cut(self._session.position)
        self._owner._take_back(self._reader)


class _BlockDrafter(_StateDrafter):
    """Fills a block of masked positions in one pass (DFlash)."""

    whole: bool = True

    def read(self, following: int) -> None:
        """Compute the keys and values of the positions that wait."""
        _, states = self._reader.read()
        if states is None:
            return
        rows = self._drafter.fuse(states)
        if _is_finite(rows):
            self._drafter.step(self._reader.own, rows, "keys", 0, self._cancel)
        else:
            self._reader.lose()

    def propose(self, count: int) -> Sequence[int]:
        """The most likely tokens at the masked positions, as long as the drafter is fairly sure of all of them.

        A block ends with the last token that is wanted: every masked position costs a row of all its products.
        """
        drafter, plan, reader = self._drafter, self._drafter.plan, self._reader
        reader.cut(self._session.position)
        if reader.waiting.end < self._session.position:
            return []
        self.read(self._text[-1])
        held = reader.own.position
        masked = min(count, plan.block - 1)
        rows = drafter.embed([self._text[-1], *[plan.mask] * masked])
        if not _is_finite(rows):
            return []
        own, states = drafter.step(reader.own, rows, "causal" if plan.causal else "together", 1 + masked, self._cancel)
        reader.own.truncate(held)
        proposed: list[int] = []
        chance = 0.0
        for logits in drafter.logits(own[1:], states[1, 1:]):
            best = likely(logits, chance, self._owner.least_chance)
            if best is None:
                break
            row, chance = best
            proposed.append(drafter.token(row))
        return proposed


class _TokenDrafter(_StateDrafter):
    """Continues the last state token by token (EAGLE-3, multi-token prediction).

    A row is the pair of a state and the embedding of the token after it.
    """

    def read(self, following: int) -> None:
        """Compute the keys and values of the pairs that are complete."""
        self._pairs(following, wanted=0)

    def propose(self, count: int) -> Sequence[int]:
        """The drafter's most likely tokens, as long as it is fairly sure of all of them."""
        import numpy

        drafter, reader = self._drafter, self._reader
        reader.cut(self._session.position)
        if not reader.waiting.ids or reader.waiting.end < self._session.position:
            return []
        found = self._pairs(self._text[-1], wanted=1)
        if found is None:
            return []
        held = reader.own.position
        place = 1 if drafter.plan.next_state == "norm" else 0
        proposed: list[int] = []
        chance = 0.0
        while True:
            own, states = found
            best = likely(drafter.logits(own, states[1])[0], chance, self._owner.least_chance)
            if best is None:
                break
            row, chance = best
            proposed.append(drafter.token(row))
            if len(proposed) == count:
                break
            pair = numpy.concatenate([drafter.embed(proposed[-1:]), states[place]], axis=1)
            if not _is_finite(pair):
                break
            found = drafter.step(reader.own, pair, "causal", 1, self._cancel)
        reader.own.truncate(held)
        return proposed

    def _pairs(self, following: int, wanted: int) -> Any:
        """Read what waits, and return the logits and states of the last pair, if wanted."""
        import numpy

        ids, states = self._reader.read()
        if states is None:
            return None
        following_ids = [*ids[1:], following]
        rows = numpy.concatenate([self._drafter.embed(following_ids), self._drafter.fuse(states)], axis=1)
        if not _is_finite(rows):
            self._reader.lose()
            return None
        return self._drafter.step(self._reader.own, rows, "causal", wanted, self._cancel)


def _is_finite(rows: NDArray[np.float32]) -> bool:
    """Whether all numbers are finite, which those of damaged or extreme weights may not be."""
    import numpy

    return bool(numpy.isfinite(rows).all())
