"""Chat completions in the format of the OpenAI API, as returned by llama-cpp-python."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamacpu.answers.log_probabilities import LogProbabilities
from llamacpu.answers.reading import Piece, ToolCall
from llamacpu.answers.text_completions import Response, usage_of

if TYPE_CHECKING:
    from llamacpu.answers.reading import Answer, Event
    from llamacpu.generation import GeneratedToken
    from llamacpu.text.tokenizer import Tokenizer

__all__ = ["ChatShape", "message_of"]


class ChatShape:
    """Builds the responses for one answer.

    model      the name of the model in the responses
    tokenizer  converts tokens to text, if `logprobs` asks for log-probabilities
    legacy     tool calls are also given as "function_call", their older form
    id, index  for a response with several answers: the id of the response, and the position of this answer in it
    """

    def __init__(
        self,
        model: str,
        tokenizer: Tokenizer,
        *,
        logprobs: bool = False,
        legacy: bool = False,
        id: str | None = None,
        index: int = 0,
    ) -> None:
        self._model = model
        self._legacy = legacy
        self._index = index
        self._id = id or f"chatcmpl-{uuid.uuid4()}"
        self._created = int(time.time())
        self._chances = LogProbabilities(tokenizer, 0) if logprobs else None

    def whole(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> Response:
        """The complete response with the finished answer."""
        choice = {
            "message": message_of(answer, self._legacy),
            "logprobs": self._logprobs(tokens),
            "finish_reason": self._reason(answer),
        }
        response = self._response("chat.completion", choice)
        return {**response, "usage": usage_of(answer.result), "timings": answer.timings.as_dict()}

    def begin(self) -> list[Response]:
        """The chunks before the answer, which give the role."""
        return [self._chunk({"role": "assistant"}, None)]

    def chunk(self, event: Event, tokens: Sequence[GeneratedToken]) -> Response:
        """The chunk for a piece of the answer or a tool call; `tokens` are those chosen since the previous chunk."""
        if isinstance(event, Piece):
            key = "content" if event.kind == "content" else "reasoning_content"
            return self._chunk({key: event.text}, self._logprobs(tokens))
        delta: Response = {"tool_calls": [{"index": event.index, **_call(event)}]}
        if self._legacy:
            delta["function_call"] = {"name": event.name, "arguments": event.arguments}
        return self._chunk(delta, self._logprobs(tokens))

    def end(self, answer: Answer, tokens: Sequence[GeneratedToken]) -> list[Response]:
        """The chunks after the answer, which give the finish reason."""
        last = self._chunk({}, self._logprobs(tokens), self._reason(answer))
        return [{**last, "timings": answer.timings.as_dict()}]

    def usage(self, answer: Answer) -> Response:
        """The last chunk, with the token counts, for requests that ask for them."""
        return {**self._response("chat.completion.chunk", {}), "choices": [], "usage": usage_of(answer.result)}

    def _reason(self, answer: Answer) -> str:
        return "function_call" if self._legacy and answer.finish_reason == "tool_calls" else answer.finish_reason

    def _chunk(self, delta: Response, logprobs: Response | None, reason: str | None = None) -> Response:
        choice = {"delta": delta, "logprobs": logprobs, "finish_reason": reason}
        return self._response("chat.completion.chunk", choice)

    def _response(self, kind: str, choice: Response) -> Response:
        head = {"id": self._id, "object": kind, "created": self._created, "model": self._model}
        return {**head, "choices": [{"index": self._index, **choice}]}

    def _logprobs(self, tokens: Sequence[GeneratedToken]) -> Response | None:
        if self._chances is None:
            return None
        self._chances.note(tokens)
        content = self._chances.as_objects()
        return {"content": content, "refusal": None} if content else None


def message_of(answer: Answer, legacy: bool = False) -> Response:
    """The answer as an assistant message; with `legacy`, its first tool call is also given as "function_call"."""
    calls = answer.tool_calls
    message: Response = {"role": "assistant", "content": answer.content if answer.content or not calls else None}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
        if legacy:
            message["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments}
    return message


def _call(call: ToolCall) -> Response:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
