"""The format of responses, whole and streamed."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from llamacpu.answers.reading import ToolCall
from llamacpu.server.running import blocks
from llamacpu.server.streams import server_sent
from llamacpu.server.usage import finish_reason

if TYPE_CHECKING:
    from llamacpu.answers import Answer
    from llamacpu.server.errors import ApiError
    from llamacpu.server.responses.requests import ResponsesBody
    from llamacpu.server.running import End, Run

__all__ = ["Shape"]

Fields = dict[str, Any]


class Shape:
    """The format of one response."""

    def __init__(self, body: ResponsesBody, model: str) -> None:
        self._one_call = body.parallel_tool_calls is False
        self._number = -1
        choice = body.tool_choice
        self._head: Fields = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "error": None,
            "incomplete_details": None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": body.metadata or {},
            "model": model,
            "parallel_tool_calls": not self._one_call,
            "previous_response_id": None,
            "reasoning": {"effort": None if body.reasoning is None else body.reasoning.effort, "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": {"format": _format(body)},
            "tool_choice": "auto" if choice is None else choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [tool.model_dump() for tool in body.tools or ()],
            "top_p": body.top_p,
            "truncation": body.truncation or "disabled",
            "user": body.user,
        }

    def whole(self, end: End) -> Fields:
        """Return the finished response."""
        answer = end.answer
        items: list[Fields] = []
        if end.refusal is not None:
            return self._ended(answer, [_refused(end.refusal)])
        if answer.reasoning:
            items.append(_done(_item("reasoning"), answer.reasoning))
        if answer.content or not answer.tool_calls:
            items.append(_done(_item("content"), answer.content))
        calls = answer.tool_calls[:1] if self._one_call else answer.tool_calls
        items += [_done(_item(call), call.arguments) for call in calls]
        return self._ended(answer, items)

    async def events(self, run: Run) -> AsyncIterator[str]:
        """Yield the events of the response while it is generated."""
        begun = {**self._head, "status": "in_progress", "output": [], "usage": None}
        yield self._event("response.created", response=begun) + self._event("response.in_progress", response=begun)
        items: list[Fields] = []
        item: Fields | None = None
        text = ""
        async for event, begins in blocks(run, self._one_call):
            found = ""
            if begins:
                if item is not None:
                    found += self._close(item, text, items)
                text = ""
                item = _item(event if isinstance(event, ToolCall) else event.kind)
                found += self._open(item, len(items))
            assert item is not None
            piece = event.arguments if isinstance(event, ToolCall) else event.text
            text += piece
            yield found + self._event(f"{_NAMES[item['type']]}.delta", delta=piece, **_place(item, len(items)))
        if item is not None:
            yield self._close(item, text, items)
        assert run.end is not None
        if run.end.refusal is not None:
            refused = _refused(run.end.refusal)
            place = {**_place(refused, 0), "refusal": run.end.refusal}
            del place["logprobs"]
            yield self._open({**refused, "status": "in_progress", "content": []}, 0)
            yield self._event("response.refusal.done", **place)
            yield self._event("response.output_item.done", output_index=0, item=refused)
            items.append(refused)
        whole = self._ended(run.end.answer, items)
        yield self._event(f"response.{whole['status']}", response=whole)

    def failed(self, error: ApiError) -> str:
        """Return the last event of a failed response."""
        what = {"code": "server_error" if error.status >= 500 else "invalid_prompt", "message": error.message}
        response = {**self._head, "status": "failed", "error": what, "output": [], "usage": None}
        return self._event("response.failed", response=response)

    def _event(self, kind: str, **fields: Any) -> str:
        self._number += 1
        return server_sent({"type": kind, "sequence_number": self._number, **fields}, kind)

    def _open(self, item: Fields, index: int) -> str:
        found = self._event("response.output_item.added", output_index=index, item=item)
        if item["type"] == "message":
            found += self._event("response.content_part.added", part=_part(""), **_place(item, index))
        return found

    def _close(self, item: Fields, text: str, items: list[Fields]) -> str:
        index = len(items)
        done = _done(item, text)
        items.append(done)
        kind = _NAMES[item["type"]]
        told = {"arguments": text, "name": item["name"]} if item["type"] == "function_call" else {"text": text}
        found = self._event(f"{kind}.done", **told, **_place(item, index))
        if item["type"] == "message":
            found += self._event("response.content_part.done", part=_part(text), **_place(item, index))
        return found + self._event("response.output_item.done", output_index=index, item=done)

    def _ended(self, answer: Answer, items: list[Fields]) -> Fields:
        cut = finish_reason(answer.finish_reason) == "length"
        result = answer.result
        tokens = len(result.tokens)
        return {
            **self._head,
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "output": items,
            "usage": {
                "input_tokens": result.prompt_tokens,
                "input_tokens_details": {"cached_tokens": result.cached_tokens, "cache_write_tokens": 0},
                "output_tokens": tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": result.prompt_tokens + tokens,
            },
        }


_NAMES = {
    "message": "response.output_text", "reasoning": "response.reasoning_text",
    "function_call": "response.function_call_arguments",
}  # fmt: skip


def _item(what: str | ToolCall) -> Fields:
    """A newly started item."""
    identity = uuid.uuid4().hex
    if isinstance(what, ToolCall):
        return {
            "id": f"fc_{identity}", "type": "function_call", "status": "in_progress", "call_id": what.id,
            "name": what.name, "arguments": "",
        }  # fmt: skip
    if what == "reasoning":
        return {"id": f"rs_{identity}", "type": "reasoning", "summary": [], "content": [], "status": "in_progress"}
    return {"id": f"msg_{identity}", "type": "message", "status": "in_progress", "role": "assistant", "content": []}


def _refused(words: str) -> Fields:
    """A message that says why there is no answer."""
    return {**_item("content"), "status": "completed", "content": [{"type": "refusal", "refusal": words}]}


def _done(item: Fields, text: str) -> Fields:
    """The same item when finished."""
    if item["type"] == "function_call":
        return {**item, "status": "completed", "arguments": text}
    part = {"type": "reasoning_text", "text": text} if item["type"] == "reasoning" else _part(text)
    return {**item, "status": "completed", "content": [part]}


def _part(text: str) -> Fields:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _place(item: Fields, index: int) -> Fields:
    place: Fields = {"item_id": item["id"], "output_index": index}
    if item["type"] != "function_call":
        place["content_index"] = 0
    if item["type"] == "message":
        place["logprobs"] = []
    return place


def _format(body: ResponsesBody) -> Fields:
    form = None if body.text is None else body.text.format
    return {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_none=True)
