"""Text completions in the format of the OpenAI API, as returned by llama-cpp-python."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers.log_probabilities import LogProbabilities
from llamacpu.answers.reading import Piece

if TYPE_CHECKING:
    from llamacpu.answers.question import TextPrompt
    from llamacpu.answers.reading import Answer, Event
    from llamacpu.generation import GeneratedToken, GenerationResult
    from llamacpu.sampling import TokenLogProbability
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["Response", "TextShape", "usage_of"]

Response = dict[str, Any]


def usage_of(result: GenerationResult) -> Response:
    """The token counts of the prompt and the answer."""
    count = len(result.tokens)
    return {
        "prompt_tokens": result.prompt_tokens,
        "completion_tokens": count,
        "total_tokens": result.prompt_tokens + count,
    }


class TextShape:
    """Builds the responses for one completion.

    model      the name of the model in the responses
    tokenizer  converts tokens to text, if `logprobs` asks for log-probabilities
    echo       whether the prompt comes first: False, True, or the log-probabilities of its tokens, which imply True
    id, index  for a response with several completions: the id of the response, and the position of this one in it
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        prompt: TextPrompt,
        *,
        logprobs: bool = False,
        echo: Sequence[TokenLogProbability | None] | bool = False,
        id: str | None = None,
        index: int = 0,
    ) -> None:
        self._index = index
        self._head = {
            "id": id or f"cmpl-{uuid.uuid4()}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }
        self._suffix = prompt.suffix
        self._prompt = prompt.text if echo is not False else ""
        self._chances: LogProbabilities | None = None
        if logprobs:
            self._chances = LogProbabilities(tokenizer, 0 if echo is not False else len(prompt.text))
            if not isinstance(echo, bool):
                begins = prompt.ids[0] == tokenizer.bos
                rows = list(zip(prompt.ids, echo, strict=True))[begins:]
                for place, (token, chance) in enumerate(rows):
                    self._chances.add(token, chance if place else None)

    def whole(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> Response:
        """The complete response with the finished completion."""
        response = self._choice(self._prompt + answer.content + self._suffix, tokens, answer.finish_reason)
        return {**response, "usage": usage_of(answer.result), "timings": answer.timings.as_dict()}

    def begin(self) -> list[Response]:
        """The chunks before the text: the prompt, if it is echoed."""
        return [self._choice(self._prompt, ())] if self._prompt else []

    def chunk(self, event: Event, tokens: Sequence[GeneratedToken]) -> Response:
        """The chunk for a piece of the text; `tokens` are those chosen since the previous chunk."""
        return self._choice(event.text if isinstance(event, Piece) else "", tokens)

    def end(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> list[Response]:
        """The chunks after the text; the last has no text and gives the finish reason."""
        found = [self._choice(self._suffix, tokens)] if self._suffix else []
        last = self._choice("", () if found else tokens, answer.finish_reason)
        return [*found, {**last, "timings": answer.timings.as_dict()}]

    def usage(self, answer: Answer) -> Response:
        """The last chunk, with the token counts, for requests that ask for them."""
        return {**self._head, "choices": [], "usage": usage_of(answer.result)}

    def _choice(self, text: str, tokens: Sequence[GeneratedToken], finish_reason: str | None = None) -> Response:
        chances = None
        if self._chances is not None:
            self._chances.note(tokens)
            chances = self._chances.as_lists()
        choice = {"text": text, "index": self._index, "logprobs": chances, "finish_reason": finish_reason}
        return {**self._head, "choices": [choice]}
