"""Speculative decoding while a request runs alone: otherwise the rows of a pass are better spent on other requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llamacpu.drafting import Draft, Drafter

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken, SessionLike

__all__ = ["QuietDraft"]


class QuietDraft(Draft):
    """Proposes what another draft proposes, but only while `alone()` is true."""

    def __init__(self, draft: Draft, alone: Callable[[], bool]) -> None:
        super().__init__(draft.max_tokens, draft.adaptive)
        self._draft = draft
        self._alone = alone
        self.reads_states: bool = draft.reads_states
        self.follows_pictures: bool = draft.follows_pictures

    def check(self, session: SessionLike) -> None:
        """See `Draft.check`."""
        self._draft.check(session)

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """See `Draft.begin`."""
        drafter = _QuietDrafter(lambda: self._draft.begin(session, text, cancel), self._alone)
        if self.reads_states:
            drafter.start()
        return drafter


class _QuietDrafter(Drafter):
    """Starts its inner drafter when first needed, since starting may cost as much as processing the prompt."""

    def __init__(self, begin: Callable[[], Drafter], alone: Callable[[], bool]) -> None:
        self._begin = begin
        self._alone = alone
        self._inner: Drafter | None = None
        self._lost = False

    def start(self) -> Drafter:
        """Start the inner drafter, if it has not started."""
        if self._inner is None:
            self._inner = self._begin()
            self.free, self.whole = self._inner.free, self._inner.whole
        return self._inner

    @property
    def layers(self) -> tuple[int, ...]:
        """What the inner drafter wants, nothing while other requests are running."""
        return () if self._inner is None or not self._alone() else self._inner.layers

    def observe(self, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Pass the states on."""
        if self._inner is not None:
            self._inner.observe(position, ids, states)

    def strength(self) -> int | None:
        """The inner drafter's strength, None while other requests are running."""
        if self._lost or not self._alone():
            return None
        return self.start().strength()

    def propose(self, count: int) -> Sequence[int]:
        """Propose what the inner drafter proposes."""
        return [] if self._inner is None else self._inner.propose(count)

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
