"""The table of llama-server endpoints."""

from __future__ import annotations

from functools import partial
from typing import Any

from llamacpu.server.endpoints import Endpoint
from llamacpu.server.errors import ApiError
from llamacpu.server.llama_server.completion import completion, infill
from llamacpu.server.llama_server.requests import (
    ApplyTemplate,
    Completion,
    Detokenize,
    EmbeddingBody,
    Infill,
    RerankBody,
    Tokenize,
)
from llamacpu.server.llama_server.reranking import rerank
from llamacpu.server.llama_server.tokens import (
    apply_template,
    detokenize,
    embedding,
    lora_adapters,
    props,
    set_lora_adapters,
    slots,
    tokenize,
)
from llamacpu.server.openai.models import list_models

__all__ = ["ENDPOINTS"]


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


_TEXT = {"type": "string"}
# No field is required, as a request may select the fields of its response.
_COMPLETION = {"type": ["object", "array"]}
_LIST = {"type": "array"}
_endpoint = partial(Endpoint, error=ApiError.llama_server, tag="llama-server")
_post = partial(_endpoint, method="POST")
_get = partial(_endpoint, method="GET")

ENDPOINTS = [
    *(
        _post(
            path=path, summary="Create a completion.", handler=completion, body=Completion, response=_COMPLETION,
            stream="text/event-stream",
        )
        for path in ("/completion", "/completions")
    ),
    _post(
        path="/infill", summary="Fill in the middle between a prefix and a suffix.", handler=infill, body=Infill,
        response=_COMPLETION, stream="text/event-stream",
    ),
    _post(
        path="/tokenize", summary="Tokenize a text.", handler=tokenize, body=Tokenize,
        response=_object("tokens", tokens=_LIST),
    ),
    _post(
        path="/detokenize", summary="Convert tokens to text.", handler=detokenize, body=Detokenize,
        response=_object("content", content=_TEXT),
    ),
    _post(
        path="/apply-template", summary="Render a conversation with the chat template.", handler=apply_template,
        body=ApplyTemplate, response=_object("prompt", prompt=_TEXT),
    ),
    *(
        _post(path=path, summary="Create embeddings.", handler=embedding, body=EmbeddingBody, response=_LIST)
        for path in ("/embedding", "/embeddings")
    ),
    *(
        _post(
            path=path, summary="Rerank documents by relevance to a query.", handler=rerank, body=RerankBody,
            response={"type": ["object", "array"]},
        )
        for path in ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")
    ),
    _get(
        path="/props", summary="Show the server's properties.", handler=props, statuses=(404, 503),
        response=_object("default_generation_settings", "total_slots", "chat_template"),
    ),
    _get(path="/slots", summary="Show the slots.", handler=slots, response=_LIST),
    _get(path="/lora-adapters", summary="List the LoRA adapters.", handler=lora_adapters, response=_LIST),
    _post(
        path="/lora-adapters", summary="Set the scales of LoRA adapters.", handler=set_lora_adapters,
        response=_object("success", success={"type": "boolean"}),
    ),
    _get(path="/models", summary="List the models.", handler=list_models, response=_object("data")),
]  # fmt: skip
