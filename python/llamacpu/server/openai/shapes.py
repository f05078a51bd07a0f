"""What the server's responses add to those of the library: choices that ended early, token counts and timings."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llamacpu.answers.chat_completions import ChatShape
from llamacpu.answers.reading import Piece, ToolCall
from llamacpu.answers.text_completions import TextShape
from llamacpu.server.usage import finish_reason, progress_of, timings_of, usage_of

if TYPE_CHECKING:
    from llamacpu.answers.reading import Event
    from llamacpu.answers.responses import Shape
    from llamacpu.generation import GeneratedToken
    from llamacpu.scheduler import PromptReport
    from llamacpu.server.running import End

__all__ = ["ChatChoice", "Choice", "TextChoice"]

Response = dict[str, Any]


class Choice:
    """One answer of a response, formatted by a shape."""

    def __init__(self, shape: Shape, one_call: bool = False) -> None:
        self._shape = shape
        self._one_call = one_call
        self._called = False

    def whole(self, end: End) -> Response:
        """Return the response with only this answer."""
        answer = end.answer
        found = _ended(self._shape.whole(answer, end.tokens), end.refusal)
        message = found["choices"][0].get("message")
        if message is not None:
            message["refusal"] = end.refusal
            if end.refusal is not None:
                message["content"] = None
            if self._one_call and message.get("tool_calls"):
                message["tool_calls"] = message["tool_calls"][:1]
        return {**found, "usage": usage_of([answer.result]), "timings": timings_of(answer.result)}

    def begin(self) -> list[Response]:
        """Return the chunks before the answer."""
        return self._shape.begin()

    def chunk(self, event: Event, tokens: Sequence[GeneratedToken]) -> list[Response]:
        """Return the chunks for a piece of the answer."""
        if isinstance(event, ToolCall) and self._one_call:
            if self._called:
                return []
            self._called = True
        return [self._shape.chunk(event, tokens)]

    def progress(self, report: PromptReport) -> Response:
        """Return the chunk that says how much of the prompt is processed; it has no text."""
        return {**self._shape.chunk(Piece("content", ""), ()), "prompt_progress": progress_of(report)}

    def end(self, end: End) -> list[Response]:
        """Return the chunks after the answer."""
        found = [_ended(chunk, end.refusal) for chunk in self._shape.end(end.answer, end.tokens)]
        found[-1]["timings"] = timings_of(end.answer.result)
        delta = found[-1]["choices"][0].get("delta")
        if end.refusal is not None and delta is not None:
            told = copy.deepcopy(found[-1])
            told["choices"][0] |= {"delta": {"refusal": end.refusal}, "finish_reason": None}
            found.insert(-1, told)
        return found


class ChatChoice(Choice):
    """An answer to a conversation."""

    def __init__(self, model: str, tokenizer: Any, *, one_call: bool = False, **settings: Any) -> None:
        super().__init__(ChatShape(model, tokenizer, **settings), one_call)


class TextChoice(Choice):
    """A continuation of a text."""

    def __init__(self, model: str, tokenizer: Any, prompt: Any, **settings: Any) -> None:
        super().__init__(TextShape(model, tokenizer, prompt, **settings))


def _ended(response: Response, refusal: str | None) -> Response:
    for choice in response["choices"]:
        if choice.get("finish_reason"):
            reason = finish_reason(choice["finish_reason"])
            choice["finish_reason"] = reason if refusal is None else "content_filter"
    return response
