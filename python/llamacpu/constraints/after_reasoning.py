"""A constraint that takes effect after the reasoning: the reasoning is free, the answer is not."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.engine.interfaces import CancelToken
    from llamacpu.text.tokenizer import Tokenizer

    Processor = Callable[[npt.NDArray[np.int64], npt.NDArray[np.float32]], npt.NDArray[np.float32]]

__all__ = ["AfterReasoning"]

# Tokens that begin with the rest of a closing tag and continue with text, keyed by that rest.
_crossing: weakref.WeakKeyDictionary[Tokenizer, dict[bytes, list[int]]] = weakref.WeakKeyDictionary()


class AfterReasoning:
    """A logits processor that leaves reasoning alone and passes the answer to another one. For one text only.

    begin: creates the processor of the answer; called when the reasoning has ended.
    closing: the tag that ends the reasoning, which the prompt has opened.

    A text cannot end inside the reasoning: where the model wants it to, the closing tag is forced first. No token may
    contain both the end of the tag and the beginning of the answer.
    """

    def __init__(self, begin: Callable[[], Processor], tokenizer: Tokenizer, closing: str) -> None:
        self._begin = begin
        self._tokenizer = tokenizer
        self._closing = closing.encode()
        self._written = tokenizer.encode(closing, add_special=False, parse_special=True, space_prefix=False)
        self._ends = sorted(tokenizer.eog)
        self._answer: Processor | None = None
        self._cancel: CancelToken | None = None
        self._seen: int | None = None
        self._text = b""
        self._forced: list[int] = []

    def stop_with(self, cancel: CancelToken) -> None:
        """Make the other processor stop, raising `Cancelled`, once this token is cancelled."""
        self._cancel = cancel
        self._pass_on()

    def _pass_on(self) -> None:
        stop_with = getattr(self._answer, "stop_with", None)
        if self._cancel is not None and stop_with is not None:
            stop_with(self._cancel)

    @property
    def begun(self) -> bool:
        """Whether the reasoning has ended."""
        return self._answer is not None

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

    def _take(self, token: int) -> None:
        if self._forced and token == self._forced[0]:
            del self._forced[0]
        self._text += self._tokenizer.decode_bytes([token])
        if self._closing in self._text:
            self._answer = self._begin()
            self._pass_on()
        # Keep only what may be the beginning of the tag.
        self._text = self._text[-len(self._closing) :]

    def _mask(self, logits: npt.NDArray[np.float32]) -> None:
        import numpy as np

        if not self._forced and self._ends and int(logits.argmax()) in self._ends:
            begun = next(n for n in range(len(self._closing), -1, -1) if self._text.endswith(self._closing[:n]))
            rest = self._closing[begun:].decode(errors="ignore")
            self._forced = self._written if not begun else self._tokenizer.encode(
                rest, add_special=False, parse_special=False, space_prefix=False
            )  # fmt: skip
            self._forced = list(self._forced)
        if self._forced:
            chosen = self._forced[0]
            likes = logits[chosen]
            logits[:] = -np.inf
            logits[chosen] = likes if np.isfinite(likes) else 0.0
            return
        logits[self._ends] = -np.inf
        for begun in range(1, len(self._closing)):
            if self._text.endswith(self._closing[:begun]):
                logits[self._crossing(self._closing[begun:])] = -np.inf

    def _crossing(self, rest: bytes) -> list[int]:
        known = _crossing.setdefault(self._tokenizer, {})
        if rest not in known:
            decode, size = self._tokenizer.decode_bytes, self._tokenizer.vocab_size
            texts = ((token, decode([token], skip_special=True)) for token in range(size))
            known[rest] = [token for token, text in texts if text.startswith(rest) and text[len(rest) :].strip()]
        return known[rest]
