"""Log-probabilities as the OpenAI API writes them, and those of a prompt."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamacpu.sampling import TokenLogProbability, log_probability

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation import GeneratedToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["LogProbabilities", "prompt_log_probabilities"]

# Rows of logits that are held at once while the log-probabilities of a prompt are taken.
_PROMPT_ROWS = 64


@dataclass
class LogProbabilities:
    """The log-probabilities of a text as the OpenAI interface writes them, gathered token by token."""

    tokenizer: Tokenizer
    offset: int
    tokens: list[str] = field(default_factory=list)
    text_offset: list[int] = field(default_factory=list)
    token_logprobs: list[float | None] = field(default_factory=list)
    top_logprobs: list[dict[str, float] | None] = field(default_factory=list)

    def text(self, token: int) -> str:
        """A token as text; half a character is nothing."""
        return self.tokenizer.decode_bytes([token]).decode("utf-8", "ignore")

    def add(self, token: int, chance: TokenLogProbability | None) -> None:
        """Note a token; None where nothing is known of it (the first of a prompt)."""
        text = self.text(token)
        self.tokens.append(text)
        self.text_offset.append(self.offset)
        self.offset += len(text)
        if chance is None:
            self.token_logprobs.append(None)
            self.top_logprobs.append(None)
        else:
            self.token_logprobs.append(chance.log_probability)
            top = {self.text(other): value for other, value in chance.top}
            self.top_logprobs.append({**top, text: chance.log_probability})

    def note(self, tokens: Iterable[GeneratedToken]) -> None:
        """Note tokens of the answer."""
        for token in tokens:
            self.add(token.id, token.log_probability)

    def taken(self) -> dict[str, Any] | None:
        """What was gathered since the last call; None where there is nothing."""
        if not self.tokens:
            return None
        found = {
            "tokens": self.tokens,
            "text_offset": self.text_offset,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
        }
        self.tokens, self.text_offset, self.token_logprobs, self.top_logprobs = [], [], [], []
        return found


def prompt_log_probabilities(session: SessionLike, prompt: Sequence[int], top: int) -> list[TokenLogProbability | None]:
    """How likely the model finds each token of the prompt after those before it; the first has none.

    The session is truncated, and holds the prompt without its last token afterwards.
    """
    session.truncate(0)
    found: list[TokenLogProbability | None] = [None]
    for start in range(0, len(prompt) - 1, _PROMPT_ROWS):
        piece = list(prompt[start : min(start + _PROMPT_ROWS, len(prompt) - 1)])
        rows = session.forward(piece, logits="all")
        found += [log_probability(row, prompt[start + place + 1], top) for place, row in enumerate(rows)]
    return found
