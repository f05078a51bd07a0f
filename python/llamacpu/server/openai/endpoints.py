"""The table of OpenAI API endpoints."""

from __future__ import annotations

from typing import Any

from llamacpu.server.endpoints import Endpoint
from llamacpu.server.openai.chat import chat_completions
from llamacpu.server.openai.completions import completions
from llamacpu.server.openai.embeddings import embed
from llamacpu.server.openai.models import list_models, show_model
from llamacpu.server.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest

__all__ = ["ENDPOINTS"]


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_TEXT = {"type": "string"}
_COUNT = {"type": "integer", "minimum": 0}
_LIST = {"type": "array"}
_MODEL = _object({"id": _TEXT, "object": {"const": "model"}, "created": _COUNT, "owned_by": _TEXT})
_USAGE = _object({"prompt_tokens": _COUNT, "completion_tokens": _COUNT, "total_tokens": _COUNT})
_REASON = {"enum": ["stop", "length", "tool_calls", "function_call", "content_filter"]}
_MESSAGE = _object({"role": {"const": "assistant"}, "content": {"type": ["string", "null"]}}, tool_calls=_LIST)
_HEAD = {"id": _TEXT, "created": _COUNT, "model": _TEXT, "usage": _USAGE}


def _answers(kind: str, **choice: Any) -> dict[str, Any]:
    choices = {"type": "array", "items": _object({"index": _COUNT, "finish_reason": _REASON, **choice})}
    return _object({**_HEAD, "object": {"const": kind}, "choices": choices})


_VECTOR = {"oneOf": [{"type": "array", "items": {"type": "number"}}, _TEXT]}
_EMBEDDING = _object({"object": {"const": "embedding"}, "index": _COUNT, "embedding": _VECTOR})
_EMBEDDINGS = _object(
    {
        "object": {"const": "list"}, "model": _TEXT, "data": {"type": "array", "items": _EMBEDDING},
        "usage": _object({"prompt_tokens": _COUNT, "total_tokens": _COUNT}),
    }
)  # fmt: skip

ENDPOINTS = [
    Endpoint(
        method="POST", path="/v1/chat/completions", summary="Create a chat completion.", handler=chat_completions,
        body=ChatRequest, response=_answers("chat.completion", message=_MESSAGE), stream="text/event-stream",
    ),
    Endpoint(
        method="POST", path="/v1/completions", summary="Create a text completion.", handler=completions,
        body=CompletionRequest, response=_answers("text_completion", text=_TEXT), stream="text/event-stream",
    ),
    Endpoint(
        method="POST", path="/v1/embeddings", summary="Create embeddings.", handler=embed,
        body=EmbeddingRequest, response=_EMBEDDINGS,
    ),
    Endpoint(
        method="GET", path="/v1/models", summary="List the models.", handler=list_models,
        response=_object({"object": {"const": "list"}, "data": {"type": "array", "items": _MODEL}}),
    ),
    Endpoint(
        method="GET", path="/v1/models/{model:path}", summary="Retrieve a model.", handler=show_model,
        parameters=("model",), response=_MODEL,
    ),
]  # fmt: skip
