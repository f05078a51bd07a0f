"""The interface of what proposes tokens, and an implementation that calls a function of the caller."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from llamacpu.drafting.cost import StepCost
    from llamacpu.engine.interfaces import CancelToken, SessionLike

MOST_TOKENS = 15
"""Longest proposal. One pass over 16 tokens still streams the weights once; beyond that, the cost rises quickly."""

ProposeTokens = Callable[[npt.NDArray[np.intc]], Sequence[int] | npt.NDArray[np.integer]]
"""(prompt and text so far as ids) -> ids that may come next; this is how `llama_cpp` calls its draft models."""


class Drafter(ABC):
    """Proposes how one text continues."""

    free: bool = False
    """Whether a proposal costs next to nothing, so that its quality may be observed without using it."""
    whole: bool = False
    """Whether a proposal costs the same whatever its length."""
    cost: StepCost | None = None
    """What steps cost, as whoever runs the steps of several texts has measured. None: the passes over this text are
    measured."""

    @property
    def others(self) -> int:
        """How many tokens of other texts the next pass will probably have."""
        return 0

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden states that `observe` wants from the next pass, as `Model.step_hidden` counts them."""
        return ()

    def observe(self, position: int, ids: Sequence[int], states: NDArray[np.float32]) -> None:
        """Take the states, float32[layers, tokens, width], of `ids`, which the session now has at `position`."""
        return

    def strength(self) -> int | None:
        """The evidence for a proposal now: the length of a match, 0 if that is unknown, None for no proposal."""
        return 0

    @abstractmethod
    def propose(self, count: int) -> Sequence[int]:
        """Return at most `count` tokens that may come next."""

    def shifted(self, tokens: Sequence[int]) -> None:
        """Follow a shortened context, which now holds `tokens`; the text continues after them."""
        return

    def close(self) -> None:
        """Finish: no more proposals are needed."""
        return


class Draft(ABC):
    """A source of proposals; what `draft` of `generate` takes.

    max_tokens: longest proposal, 1 to 15. adaptive: propose only as much as pays off, judging by the measured cost of a
    pass and by how many proposals were right; otherwise always propose `max_tokens`.
    """

    free: bool = False
    """Whether its drafters and their proposals cost next to nothing."""
    reads_states: bool = False
    """Whether its drafters read hidden states of the model, those of the prompt included: they begin before it."""
    follows_pictures: bool = True
    """Whether its drafters can follow a text with pictures."""

    def __init__(self, max_tokens: int = MOST_TOKENS, adaptive: bool = True) -> None:
        if not 1 <= max_tokens <= MOST_TOKENS:
            raise ValueError(f"max_tokens of a draft is {max_tokens}; expected 1 to {MOST_TOKENS}")
        self.max_tokens = max_tokens
        self.adaptive = adaptive

    def check(self, session: SessionLike) -> None:
        """Raise ModelError if there can be no proposals for this session."""
        return

    def close(self) -> None:
        """Release what was opened for the draft; nothing can be proposed afterwards."""
        return

    @abstractmethod
    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """Begin drafting for a session whose prompt is `text`; the drafter sees the list grow with the text."""


class FunctionDraft(Draft):
    """Calls a function of the caller for every proposal."""

    def __init__(self, function: ProposeTokens, max_tokens: int = MOST_TOKENS, adaptive: bool = True) -> None:
        super().__init__(max_tokens, adaptive)
        self._function = function

    def begin(self, session: SessionLike, text: list[int], cancel: CancelToken | None) -> Drafter:
        """See `Draft.begin`."""
        return _FunctionDrafter(self._function, text, session.model.vocab_size)


class _FunctionDrafter(Drafter):
    def __init__(self, function: ProposeTokens, text: list[int], vocabulary: int) -> None:
        self._function = function
        self._text = text
        self._vocabulary = vocabulary

    def propose(self, count: int) -> Sequence[int]:
        """What the function returns. Raises ValueError for tokens that the model does not have."""
        tokens = [int(token) for token in self._function(np.array(self._text, dtype=np.intc))][:count]
        for token in tokens:
            if not 0 <= token < self._vocabulary:
                raise ValueError(f"the draft proposed token {token}; expected ids from 0 to {self._vocabulary - 1}")
        return tokens
