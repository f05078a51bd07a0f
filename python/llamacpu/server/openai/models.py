"""GET /v1/models and /v1/models/{model}."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llamacpu.server.streams import JsonResponse

if TYPE_CHECKING:
    from starlette.responses import Response

    from llamacpu.server.endpoints import Call
    from llamacpu.server.pool import Entry

__all__ = ["list_models", "show_model"]


async def list_models(call: Call) -> Response:
    """List all models."""
    models = call.state.models
    found = [_described(entry, name) for name in models.names for entry in [models.find(name)]]
    return JsonResponse({"object": "list", "data": found})


async def show_model(call: Call) -> Response:
    """Describe one model."""
    name = call.request.path_params["model"]
    return JsonResponse(_described(call.state.models.find(name), name))


def _described(entry: Entry, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"id": name, "object": "model", "created": entry.created, "owned_by": "llamacpu"}
    meta: dict[str, Any] = {"size": entry.nbytes, "loaded": entry.served is not None}
    if entry.served is not None:
        model = entry.served.model
        meta |= {"n_ctx": entry.served.context, "n_ctx_train": model.context_length, "n_vocab": model.vocab_size}
    return {**found, "meta": meta}
