"""The common part of constraints that leave the beginning of a text free and hand the rest of it to another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

    Processor = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]]

__all__ = ["DeferredConstraint"]


class DeferredConstraint(ABC):
    """A logits processor that hands the text to another one as soon as it has found out where that begins.

    For one text only. Subclasses read the text (`_take`), mask its beginning (`_mask`), and call `_hand_over`.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ends = sorted(tokenizer.eog)
        self._answer: Processor | None = None
        self._cancel: CancelToken | None = None
        self._seen: int | None = None
        self._forced: list[int] = []

    def stop_with(self, cancel: CancelToken) -> None:
        """Stop before the next step, raising `Cancelled`, once this token is cancelled."""
        self._cancel = cancel
        self._pass_on()

    def _pass_on(self) -> None:
        stop_with = getattr(self._answer, "stop_with", None)
        if self._cancel is not None and stop_with is not None:
            stop_with(self._cancel)

    def _hand_over(self, answer: Processor) -> None:
        self._answer = answer
        self._pass_on()

    def __call__(self, ids: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Mask the tokens that may not come next, in place. `ids` are the prompt and the text so far."""
        if self._answer is None:
            for token in ids[self._seen :].tolist() if self._seen is not None else ():
                self._take(token)
            self._seen = len(ids)
        if self._answer is not None:
            return self._answer(ids, logits)
        self._mask(logits)
        return logits

    @abstractmethod
    def _take(self, token: int) -> None:
        """Read the next token of the text."""

    @abstractmethod
    def _mask(self, logits: npt.NDArray[np.float32]) -> None:
        """Mask the tokens that may not come next."""

    def _forbid_end(self, logits: npt.NDArray[np.float32], closing: Callable[[], list[int]]) -> bool:
        """Mask the end of the text; where the model wants it to end, force the tokens of `closing` instead.

        Returns whether one of them is forced.
        """
        import numpy as np

        if not self._forced and self._ends and int(logits.argmax()) in self._ends:
            self._forced = closing()
        if not self._forced:
            logits[self._ends] = -np.inf
            return False
        chosen = self._forced[0]
        likes = logits[chosen]
        logits[:] = -np.inf
        logits[chosen] = likes if np.isfinite(likes) else 0.0
        return True
