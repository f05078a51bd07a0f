"""Speculative decoding in steps that several requests share: only as far as their measured prices leave room for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llamacpu.drafting import Draft, Drafter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.drafting.cost import StepCost
    from llamacpu.engine.interfaces import CancelToken, SessionLike

__all__ = ["QuietDraft"]

Company = Callable[[int], int | None]
"""(tokens that a request had in the last step) -> tokens that the others will have in the next one; None if they read
prompts, which leave no room for proposals."""

# The most tokens of a step to which proposals are added: beyond that, arithmetic bounds a step.
_MOST_TOKENS = 16


class QuietDraft(Draft):
    """Proposes what another draft proposes.

    While others run, that is done only if a proposal costs next to nothing and its length is adapted to the prices of
    steps, which the scheduler measures: `cost`.
    """

    def __init__(self, draft: Draft, company: Company, cost: StepCost) -> None:
        super().__init__(draft.max_tokens, draft.adaptive)
        self._draft = draft
        self._company = company
        self._cost = cost
        self.free: bool = draft.free
        self.reads_states: bool = draft.reads_states
        self.follows_pictures: bool = draft.follows_pictures

    def check(self, session: SessionLike) -> None:
        """See `Draft.check`."""
        self._draft.check(session)

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """See `Draft.begin`."""
        company = self._company if self.free and self.adaptive else _only_alone(self._company)
        drafter = _QuietDrafter(lambda: self._draft.begin(session, text, cancel), company)
        if self.reads_states:
            # The scheduler does not time the passes that return states.
            drafter.start()
        else:
            drafter.cost = self._cost
        return drafter


def _only_alone(company: Company) -> Company:
    """The same, with None for any company."""
    return lambda own: None if company(own) != 0 else 0


class _QuietDrafter(Drafter):
    """Starts its inner drafter when first needed, since starting may cost as much as processing the prompt."""

    def __init__(self, begin: Callable[[], Drafter], company: Company) -> None:
        self._begin = begin
        self._company = company
        self._inner: Drafter | None = None
        self._lost = False
        # Tokens in the last step.
        self._own = 1

    @property
    def others(self) -> int:
        """See `Drafter.others`."""
        return self._company(self._own) or 0

    def start(self) -> Drafter:
        """Start the inner drafter, if it has not started."""
        if self._inner is None:
            self._inner = self._begin()
            self.free, self.whole = self._inner.free, self._inner.whole
        return self._inner

    @property
    def layers(self) -> tuple[int, ...]:
        """What the inner drafter wants, nothing while other requests are running."""
        return () if self._inner is None or self._company(self._own) != 0 else self._inner.layers

    def observe(self, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Pass the states on."""
        if self._inner is not None:
            self._inner.observe(position, ids, states)

    def strength(self) -> int | None:
        """The inner drafter's strength, None while there is no room for proposals."""
        others = self._company(self._own)
        self._own = 1
        if self._lost or others is None or others >= _MOST_TOKENS:
            return None
        return self.start().strength()

    def propose(self, count: int) -> Sequence[int]:
        """Propose what the inner drafter proposes."""
        found = [] if self._inner is None else self._inner.propose(count)
        self._own = 1 + len(found)
        return found

    def shifted(self, tokens: Sequence[int]) -> None:
        """Pass the shift on; a drafter that has not started can no longer know what the context holds."""
        if self._inner is None:
            self._lost = True
        else:
            self._inner.shifted(tokens)

    def close(self) -> None:
        """Close the inner drafter."""
        if self._inner is not None:
            self._inner.close()
