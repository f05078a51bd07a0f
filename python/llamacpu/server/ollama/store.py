"""POST /api/pull and /api/copy, DELETE /api/delete: the store of models, where the server's owner allows it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llamacpu.server.errors import ApiError, invalid
from llamacpu.server.ollama.requests import CopyBody, ModelBody, PullBody
from llamacpu.server.streams import JsonResponse, Stream, encoded, while_connected

if TYPE_CHECKING:
    from llamacpu.server.endpoints import Call
    from llamacpu.server.stored import Download, Store

__all__ = ["copy", "delete", "pull"]


async def pull(call: Call) -> Response:
    """Bring a model to the server; one that it was started with is there."""
    body: PullBody = call.body
    name = _given(body.wanted)
    if _started_with(call, name):
        done = {"status": "success"}
        if body.stream is False:
            return JsonResponse(done)
        return Response(encoded(done) + "\n", media_type="application/x-ndjson")
    download = _store(call, "download").download(name)
    if body.stream is False:
        return JsonResponse(await while_connected(call.request, _last(download), download.stop))
    settings = call.state.settings
    return Stream(
        _encoded(download), download.stop, lambda error: encoded(error.ollama()) + "\n",
        media_type="application/x-ndjson", ping=None, ping_seconds=settings.ping_seconds,
        send_seconds=settings.send_seconds,
    )  # fmt: skip


async def copy(call: Call) -> Response:
    """Give a model a second name."""
    body: CopyBody = call.body
    source, destination = _given(body.source, "source"), _given(body.destination, "destination")
    _store(call, "copy").copy(source, destination)
    return Response()


async def delete(call: Call) -> Response:
    """Remove a model of the store."""
    body: ModelBody = call.body
    name = _given(body.wanted)
    _store(call, "delete").delete(name)
    return Response()


def _given(name: str | None, field: str = "model") -> str:
    if not name:
        raise invalid(f"{field}: the name of a model is missing", field)
    return name


def _started_with(call: Call, name: str) -> bool:
    models = call.state.models
    short = name.removesuffix(":latest")
    entry = models.entries.get(models.aliases.get(short, short))
    return entry is not None and not entry.stored


def _store(call: Call, what: str) -> Store:
    store = call.state.store
    if store is None:
        raise ApiError(
            403, f"this server does not {what} models for its clients: it serves what it was started with; whoever "
            "runs it can allow that with --store-changes", code="not_permitted",
        )  # fmt: skip
    return store


async def _encoded(download: Download) -> AsyncIterator[str]:
    async for line in download.lines():
        yield encoded(line) + "\n"


async def _last(download: Download) -> dict[str, Any]:
    return [line async for line in download.lines()][-1]
