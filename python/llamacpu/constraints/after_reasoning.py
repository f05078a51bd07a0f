"""A constraint that takes effect after the reasoning, which is not constrained."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

from llamacpu.constraints.deferred import DeferredConstraint

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from llamacpu.constraints.deferred import Processor
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["AfterReasoning"]

# Tokens that begin with the rest of a closing tag and continue with text, keyed by that rest.
_crossing: weakref.WeakKeyDictionary[Tokenizer, dict[bytes, list[int]]] = weakref.WeakKeyDictionary()


class AfterReasoning(DeferredConstraint):
    """A logits processor that leaves reasoning alone and passes the answer to another one. For one text only.

    begin: creates the processor of the answer; called when the reasoning has ended.
    closing: the tag that ends the reasoning, which the prompt has opened.

    A text cannot end inside the reasoning: where the model wants it to, the closing tag is forced first. No token may
    contain both the end of the tag and the beginning of the answer.
    """

    def __init__(self, begin: Callable[[], Processor], tokenizer: Tokenizer, closing: str) -> None:
        super().__init__(tokenizer)
        self._begin = begin
        self._closing = closing.encode()
        self._written = tokenizer.encode(closing, add_special=False, parse_special=True, space_prefix=False)
        self._text = b""

    @property
    def begun(self) -> bool:
        """Whether the reasoning has ended."""
        return self._answer is not None

    def _take(self, token: int) -> None:
        if self._forced and token == self._forced[0]:
            del self._forced[0]
        self._text += self._tokenizer.decode_bytes([token])
        if self._closing in self._text:
            self._hand_over(self._begin())
        # Keep only what may be the beginning of the tag.
        self._text = self._text[-len(self._closing) :]

    def _mask(self, logits: npt.NDArray[np.float32]) -> None:
        import numpy as np

        if self._forbid_end(logits, self._rest):
            return
        for begun in range(1, len(self._closing)):
            if self._text.endswith(self._closing[:begun]):
                logits[self._crossing(self._closing[begun:])] = -np.inf

    def _rest(self) -> list[int]:
        """The tokens of the part of the closing tag that is still missing."""
        begun = next(n for n in range(len(self._closing), -1, -1) if self._text.endswith(self._closing[:n]))
        if not begun:
            return list(self._written)
        rest = self._closing[begun:].decode(errors="ignore")
        return self._tokenizer.encode(rest, add_special=False, parse_special=False, space_prefix=False)

    def _crossing(self, rest: bytes) -> list[int]:
        known = _crossing.setdefault(self._tokenizer, {})
        if rest not in known:
            decode, size = self._tokenizer.decode_bytes, self._tokenizer.vocab_size
            texts = ((token, decode([token], skip_special=True)) for token in range(size))
            known[rest] = [token for token, text in texts if text.startswith(rest) and text[len(rest) :].strip()]
        return known[rest]
