"""Speculative decoding while a request is alone: beside others, the rows of a pass are better spent on their tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from llamacpu.drafting import Draft, Drafter

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import CancelToken, SessionLike

__all__ = ["QuietDraft"]


class QuietDraft(Draft):
    """Proposes what another draft proposes, while `alone()` is true."""

    def __init__(self, draft: Draft, alone: Callable[[], bool]) -> None:
        super().__init__(draft.max_tokens, draft.adaptive)
        self._draft = draft
        self._alone = alone

    def check(self, session: SessionLike) -> None:
        """As in `Draft`."""
        self._draft.check(session)

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """As in `Draft`."""
        return _QuietDrafter(lambda: self._draft.begin(session, text, cancel), self._alone)


class _QuietDrafter(Drafter):
    """Begins when it is needed for the first time: that may cost as much as reading the prompt."""

    def __init__(self, begin: Callable[[], Drafter], alone: Callable[[], bool]) -> None:
        self._begin = begin
        self._alone = alone
        self._inner: Drafter | None = None
        self._lost = False

    def strength(self) -> int | None:
        """None while others are running."""
        if self._lost or not self._alone():
            return None
        if self._inner is None:
            self._inner = self._begin()
            self.free = self._inner.free
        return self._inner.strength()

    def propose(self, count: int) -> Sequence[int]:
        """As the other one."""
        return [] if self._inner is None else self._inner.propose(count)

    def shifted(self, tokens: Sequence[int]) -> None:
        """As the other one; one that has not begun does not know any more what the context holds."""
        if self._inner is None:
            self._lost = True
        else:
            self._inner.shifted(tokens)

    def close(self) -> None:
        """As the other one."""
        if self._inner is not None:
            self._inner.close()
