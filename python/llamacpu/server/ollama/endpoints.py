"""The table of Ollama API endpoints."""

from __future__ import annotations

from functools import partial
from typing import Any

from llamacpu.server.endpoints import Endpoint
from llamacpu.server.errors import ApiError
from llamacpu.server.ollama.embedding import embed, embeddings
from llamacpu.server.ollama.generating import chat, generate
from llamacpu.server.ollama.models import ps, push, show, tags, version
from llamacpu.server.ollama.requests import (
    ChatBody,
    CopyBody,
    CreateBody,
    EmbedBody,
    EmbeddingsBody,
    GenerateBody,
    ModelBody,
    PullBody,
)
from llamacpu.server.ollama.store import copy, create, delete, pull

__all__ = ["ENDPOINTS"]


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_LINE = _object("model", "created_at", "done", done={"type": "boolean"})
_STATUS = _object("status", status={"type": "string"})
_MODELS = _object("models", models={"type": "array", "items": _object("name", "model", "digest", "details")})
_endpoint = partial(Endpoint, error=ApiError.ollama, tag="Ollama")

ENDPOINTS = [
    _endpoint(
        method="POST", path="/api/generate", summary="Generate a completion.", handler=generate, body=GenerateBody,
        response=_LINE, stream="application/x-ndjson",
    ),
    _endpoint(
        method="POST", path="/api/chat", summary="Generate a chat completion.", handler=chat, body=ChatBody,
        response=_LINE, stream="application/x-ndjson",
    ),
    _endpoint(
        method="POST", path="/api/embed", summary="Generate embeddings.", handler=embed, body=EmbedBody,
        response=_object("model", "embeddings", embeddings={"type": "array"}),
    ),
    _endpoint(
        method="POST", path="/api/embeddings", summary="Generate an embedding (deprecated).", handler=embeddings,
        body=EmbeddingsBody, response=_object("embedding", embedding={"type": "array"}),
    ),
    _endpoint(method="GET", path="/api/tags", summary="List the models.", handler=tags, response=_MODELS),
    _endpoint(method="GET", path="/api/ps", summary="List the loaded models.", handler=ps, response=_MODELS),
    _endpoint(
        method="GET", path="/api/version", summary="Show the API version.", handler=version,
        response=_object("version", version={"type": "string"}),
    ),
    _endpoint(
        method="POST", path="/api/show", summary="Show details of a model.", handler=show, body=ModelBody,
        response=_object("details", "model_info", "capabilities"),
    ),
    _endpoint(
        method="POST", path="/api/pull", summary="Download a model.", handler=pull,
        body=PullBody, response=_STATUS, stream="application/x-ndjson",
    ),
    _endpoint(
        method="POST", path="/api/copy", summary="Copy a model to a second name.", handler=copy, body=CopyBody,
        media_type="text/plain",
    ),
    _endpoint(
        method="DELETE", path="/api/delete", summary="Delete a model from the store.", handler=delete, body=ModelBody,
        media_type="text/plain",
    ),
    _endpoint(
        method="POST", path="/api/create", summary="Create a model from another one.", handler=create,
        body=CreateBody, response=_STATUS, stream="application/x-ndjson",
    ),
    _endpoint(method="POST", path="/api/push", summary="Not supported.", handler=push, body=PullBody),
]  # fmt: skip
