"""The drafting of one generation: what is proposed, and how much of it is confirmed."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from llamacpu.drafting.cost import cost_of
from llamacpu.drafting.draft import Draft
from llamacpu.drafting.length import AdaptiveLength
from llamacpu.engine.pictures import FIRST_PICTURE_ID

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from llamacpu.engine.interfaces import CancelToken, SessionLike


class Proposer:
    """Combines a source of proposals with the rule for their length.

    drafted, accepted: tokens so far. seconds: the time spent on making proposals.
    """

    def __init__(self, draft: Draft, session: SessionLike, prompt: Sequence[int], cancel: CancelToken | None) -> None:
        self.drafted: int = 0
        self.accepted: int = 0
        self.seconds: float = 0.0
        self._draft = draft
        self._text = list(prompt)
        self._drafter = draft.begin(session, self._text, cancel)
        # Passes that others share take longer than the tokens of this text alone would.
        self._measures = self._drafter.cost is None
        self._cost = self._drafter.cost or cost_of(session.model)
        self._rule = AdaptiveLength(self._cost, draft.max_tokens, self._drafter.whole)
        self._strength = 0
        self._made_in = 0.0
        # Spent on reading states since the last proposal.
        self._observed_in = 0.0
        # A token that was expected but not proposed, after the strength of its match.
        self._watched: tuple[int, int] | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden states that the next pass should return."""
        return self._drafter.layers

    def observe(self, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Take the states, float32[layers, tokens, width], of `ids`, which the session now has at `position`."""
        started = perf_counter()
        self._drafter.observe(position, ids, states)
        self._observed_in += perf_counter() - started

    def note(self, token: int) -> None:
        """Append a token to the text."""
        self._text.append(token)
        if self._watched is not None:
            strength, expected = self._watched
            self._rule.seen(strength, int(token == expected), wrong=token != expected)
            self._watched = None

    def propose(self, room: int) -> list[int]:
        """Return at most `room` tokens that may come next."""
        if room < 1:
            return []
        started = perf_counter()
        drafter = self._drafter
        strength = drafter.strength()
        if strength is None:
            return []
        count = min(room, self._draft.max_tokens)
        if self._draft.adaptive:
            count = self._rule.choose(strength, room, drafter.free, drafter.others)
        tokens: list[int] = []
        if count:
            tokens = _of_text(drafter.propose(count))[:count]
        elif drafter.free:
            self._watched = strength, drafter.propose(1)[0]
        self._made_in = perf_counter() - started + self._observed_in
        self._observed_in = 0.0
        self.seconds += self._made_in
        self._strength = strength
        if count and not tokens:
            # There was no proposal: the time spent on it is lost.
            self._rule.paid(0, 0, self._made_in)
        return tokens

    def passed(self, tokens: int, seconds: float) -> None:
        """Record that a pass over `tokens` tokens took `seconds`."""
        if self._measures:
            self._cost.note(tokens, seconds)
        self._rule.passed()
        self.drafted += tokens - 1

    def settled(self, count: int, right: int, wrong: bool) -> None:
        """Record that `right` of `count` proposed tokens were confirmed; `wrong`: the next one was not."""
        self.accepted += right
        self._rule.seen(self._strength, right, wrong)
        self._rule.paid(count, right, 0.0 if self._drafter.free else self._made_in)

    def shifted(self, tokens: Sequence[int]) -> None:
        """Follow a shortened context, which now holds `tokens`; the text continues after them."""
        self._drafter.shifted(tokens)

    def close(self) -> None:
        """Finish: the generation has ended."""
        self._drafter.close()


def _of_text(tokens: Sequence[int]) -> list[int]:
    """The tokens up to the first that stands for a picture, which no model writes."""
    found = list(tokens)
    end = next((place for place, token in enumerate(found) if token >= FIRST_PICTURE_ID), len(found))
    return found[:end]
