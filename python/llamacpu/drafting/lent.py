"""Proposals by a drafter that sees the keys and values of the model itself (Gemma 4's assistant).

It has nothing to read: all it needs are the model's state of the last confirmed token and a session that lends.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.drafting.draft import MOST_TOKENS, Drafter
from llamacpu.sampling import log_probability

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.drafter import EngineDrafter
    from llamacpu.engine.interfaces import CancelToken, SessionLike

__all__ = ["LentDrafter", "likely"]


def likely(logits: NDArray[np.float32], before: float, least: float) -> tuple[int, float] | None:
    """The most likely row of a drafter's logits, and the log-probability of the proposal so far.

    before: that of the proposal before it. None if all of it together has less than the probability `least`.
    """
    row = int(logits.argmax())
    if not math.isfinite(logits[row]):
        return None
    chance = before + log_probability(logits, row).log_probability
    return None if least and not chance >= math.log(least) else (row, chance)


class LentDrafter(Drafter):
    """Continues the model's last state token by token, with the model's own keys and values in sight."""

    def __init__(
        self,
        drafter: EngineDrafter,
        least_chance: float,
        session: SessionLike,
        text: list[int],
        cancel: CancelToken | None,
    ) -> None:
        self._drafter = drafter
        self._least = least_chance
        self._session = session
        self._text = text
        self._cancel = cancel
        # The states of the last tokens, float32[tokens, width], and the position after them.
        self._states: NDArray[np.float32] | None = None
        self._end = 0

    @property
    def layers(self) -> tuple[int, ...]:
        """The states that the drafter reads."""
        return self._drafter.places

    def observe(self, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Keep the states that the next proposal may begin with: of the last token, and those before a rejected one."""
        self._states = states[0, -MOST_TOKENS - 1 :].copy()
        self._end = position + len(ids)

    def propose(self, count: int) -> Sequence[int]:
        """The drafter's most likely tokens, as long as it is fairly sure of all of them."""
        position = self._session.position
        before = self._end - position
        if self._states is None or not 0 <= before < len(self._states):
            return []
        drafter, lender = self._drafter, self._session.lend()
        if lender.position != position or not drafter.can_borrow(lender):
            return []
        token, state = self._text[-1], self._states[-1 - before]
        proposed: list[int] = []
        chance = 0.0
        while len(proposed) < count:
            found = drafter.continued(lender, token, state, self._cancel)
            if found is None:
                break
            logits, state = found
            best = likely(logits, chance, self._least)
            if best is None:
                break
            token, chance = best
            proposed.append(token)
        return proposed
