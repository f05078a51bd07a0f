"""The format of Anthropic API messages, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from llamacpu.answers.reading import Piece, ToolCall
from llamacpu.server.running import blocks
from llamacpu.server.streams import server_sent

if TYPE_CHECKING:
    from llamacpu.generation import GenerationResult
    from llamacpu.server.running import End, Run

__all__ = ["Shape"]

Block = dict[str, Any]


class Shape:
    """The format of one message.

    identity, model  its id, and the name of the model that wrote it
    one_call         whether tool calls after the first are left out
    """

    def __init__(self, identity: str, model: str, one_call: bool) -> None:
        self._head = {"id": identity, "type": "message", "role": "assistant", "model": model}
        self._one_call = one_call

    def whole(self, end: End) -> Block:
        """Return the finished message."""
        answer = end.answer
        content: list[Block] = []
        if end.refusal is not None:
            content.append({"type": "text", "text": end.refusal})
            return {**self._head, "content": content, **_reason(end), "usage": _usage(answer.result)}
        if answer.reasoning:
            content.append({"type": "thinking", "thinking": answer.reasoning, "signature": ""})
        if answer.content or not answer.tool_calls:
            content.append({"type": "text", "text": answer.content})
        calls = answer.tool_calls[:1] if self._one_call else answer.tool_calls
        content += [{**_call(call), "input": _input(call)} for call in calls]
        return {**self._head, "content": content, **_reason(end), "usage": _usage(answer.result)}

    async def events(self, run: Run, prompt_tokens: int) -> AsyncIterator[str]:
        """Yield the events of the message while it is generated."""
        usage = {"input_tokens": prompt_tokens, "output_tokens": 0, "cache_creation_input_tokens": 0,
                 "cache_read_input_tokens": 0}  # fmt: skip
        empty: Block = {**self._head, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield _event("message_start", message=empty)
        yield _event("ping")
        index = -1
        async for event, begins in blocks(run, self._one_call):
            found = ""
            if begins:
                if index >= 0:
                    found += _event("content_block_stop", index=index)
                index += 1
                found += _event("content_block_start", index=index, content_block=_opened(event))
            found += _event("content_block_delta", index=index, delta=_delta(event))
            yield found
        if index >= 0:
            yield _event("content_block_stop", index=index)
        end = run.end
        assert end is not None
        if end.refusal is not None:
            yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": end.refusal})
            yield _event("content_block_stop", index=0)
        yield _event("message_delta", delta=_reason(end), usage=_usage(end.answer.result))
        yield _event("message_stop")


def _event(kind: str, **fields: Any) -> str:
    return server_sent({"type": kind, **fields}, kind)


def _opened(event: Piece | ToolCall) -> Block:
    if isinstance(event, ToolCall):
        return {**_call(event), "input": {}}
    if event.kind == "content":
        return {"type": "text", "text": ""}
    return {"type": "thinking", "thinking": "", "signature": ""}


def _delta(event: Piece | ToolCall) -> Block:
    if isinstance(event, ToolCall):
        return {"type": "input_json_delta", "partial_json": event.arguments or "{}"}
    if event.kind == "content":
        return {"type": "text_delta", "text": event.text}
    return {"type": "thinking_delta", "thinking": event.text}


def _call(call: ToolCall) -> Block:
    return {"type": "tool_use", "id": call.id, "name": call.name}


def _input(call: ToolCall) -> Any:
    try:
        found = json.loads(call.arguments or "{}")
    except ValueError:
        found = None
    return found if isinstance(found, dict) else {"arguments": call.arguments}


def _reason(end: End) -> Block:
    answer, result = end.answer, end.answer.result
    if end.refusal is not None:
        return {"stop_reason": "refusal", "stop_sequence": None}
    if answer.finish_reason == "tool_calls":
        reason = "tool_use"
    elif result.stop_string is not None:
        reason = "stop_sequence"
    else:
        reason = "end_turn" if answer.finish_reason == "stop" else "max_tokens"
    return {"stop_reason": reason, "stop_sequence": result.stop_string}


def _usage(result: GenerationResult) -> Block:
    return {
        "input_tokens": result.prompt_tokens - result.cached_tokens,
        "output_tokens": len(result.tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": result.cached_tokens,
    }
