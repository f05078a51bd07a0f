"""The table of Anthropic API endpoints."""

from __future__ import annotations

from llamacpu.server.anthropic.messages import count_tokens, messages
from llamacpu.server.anthropic.requests import CountBody, MessagesBody
from llamacpu.server.endpoints import Endpoint
from llamacpu.server.errors import ApiError

__all__ = ["ENDPOINTS"]

_COUNT = {"type": "integer", "minimum": 0}
_MESSAGE = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "type": {"const": "message"},
        "role": {"const": "assistant"},
        "content": {"type": "array", "items": {"type": "object", "required": ["type"]}},
        "stop_reason": {"enum": ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]},
        "usage": {"type": "object", "properties": {"input_tokens": _COUNT, "output_tokens": _COUNT}},
    },
    "required": ["id", "type", "role", "content", "model", "stop_reason", "stop_sequence", "usage"],
}

ENDPOINTS = [
    Endpoint(
        method="POST", path="/v1/messages", summary="Create a message.", handler=messages, body=MessagesBody,
        response=_MESSAGE, stream="text/event-stream", error=ApiError.anthropic, tag="Anthropic",
    ),
    Endpoint(
        method="POST", path="/v1/messages/count_tokens", summary="Count the tokens of a conversation.",
        handler=count_tokens, body=CountBody, error=ApiError.anthropic, tag="Anthropic",
        response={"type": "object", "properties": {"input_tokens": _COUNT}, "required": ["input_tokens"]},
    ),
]  # fmt: skip
