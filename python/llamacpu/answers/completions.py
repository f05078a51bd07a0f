"""Text completions in the shapes of the OpenAI interface, as llama-cpp-python returns them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from llamacpu.sampling import TokenLogProbability, log_probability

if TYPE_CHECKING:
    from llamacpu.engine.interfaces import SessionLike
    from llamacpu.generation import GeneratedToken, Generation
    from llamacpu.text.tokenizer import Tokenizer

Response = dict[str, Any]

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

    def taken(self) -> Response | None:
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


class TextCompletion:
    """One completion: a running generation and the responses that tell of it."""

    def __init__(
        self,
        generation: Generation,
        tokenizer: Tokenizer,
        model: str,
        prompt: str,
        prompt_tokens: Sequence[int],
        *,
        logprobs: int | None,
        echo: Sequence[TokenLogProbability | None] | bool,
        suffix: str | None,
    ) -> None:
        self.generation = generation
        self.head = {
            "id": f"cmpl-{uuid.uuid4()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._suffix = suffix or ""
        self._prompt = prompt if echo is not False else ""
        self._chances: LogProbabilities | None = None
        if logprobs is not None:
            self._chances = LogProbabilities(tokenizer, 0 if echo is not False else len(prompt))
            if not isinstance(echo, bool):
                for token, chance in list(zip(prompt_tokens, echo, strict=True))[prompt_tokens[0] == tokenizer.bos :]:
                    self._chances.add(token, chance if self._chances.tokens else None)

    def on_token(self, token: GeneratedToken) -> None:
        """To be called for every token that is chosen."""
        if self._chances is not None:
            self._chances.add(token.id, token.log_probability)

    def _choice(self, text: str, finish_reason: str | None) -> Response:
        chances = self._chances.taken() if self._chances is not None else None
        choice = {"text": text, "index": 0, "logprobs": chances, "finish_reason": finish_reason}
        return {**self.head, "choices": [choice]}

    def whole(self) -> Response:
        """The finished completion."""
        result = self.generation.read()
        response = self._choice(self._prompt + result.text + self._suffix, result.finish_reason)
        count = len(result.tokens)
        usage = {
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": count,
            "total_tokens": result.prompt_tokens + count,
        }
        return {**response, "usage": usage, "timings": result.timings.as_dict()}

    def chunks(self) -> Iterator[Response]:
        """The completion in pieces; the last has no text and says why it ended."""
        with self.generation:
            if self._prompt:
                yield self._choice(self._prompt, None)
            for piece in self.generation:
                yield self._choice(piece, None)
            if self._suffix:
                yield self._choice(self._suffix, None)
            result = self.generation.result
            yield {**self._choice("", result.finish_reason), "timings": result.timings.as_dict()}
