"""POST /api/pull, create and copy, DELETE /api/delete: changes to the model store, if the server allows them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llamacpu.errors import StoreError, TemplateError
from llamacpu.server.errors import ApiError, invalid
from llamacpu.server.ollama.requests import CopyBody, CreateBody, ModelBody, PullBody
from llamacpu.server.streams import JsonResponse, Stream, encoded, while_connected
from llamacpu.store.modelfile import ROLES, Modelfile, parse_modelfile
from llamacpu.store.parameters import value_of

if TYPE_CHECKING:
    from llamacpu.server.endpoints import Call
    from llamacpu.server.stored import Download, Store

__all__ = ["copy", "create", "delete", "pull"]


async def pull(call: Call) -> Response:
    """Download a model to the server; succeeds at once for models that it was started with."""
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
    """Give a model an additional name."""
    body: CopyBody = call.body
    source, destination = _given(body.source, "source"), _given(body.destination, "destination")
    _store(call, "copy").copy(source, destination)
    return Response()


async def create(call: Call) -> Response:
    """Create a model with its own name and settings over an existing one. Weights are not copied."""
    body: CreateBody = call.body
    name, store = _given(body.wanted), _store(call, "create")
    try:
        modelfile = _modelfile(body)
        await call.state.work.short(lambda: store.create(name, modelfile))
    except TemplateError as error:
        raise invalid(str(error), "template") from None
    except StoreError as error:
        raise invalid(str(error)) from None
    lines = [{"status": status} for status in ("reading model metadata", "writing manifest", "success")]
    if body.stream is False:
        return JsonResponse(lines[-1])
    return Response("".join(encoded(line) + "\n" for line in lines), media_type="application/x-ndjson")


def _modelfile(body: CreateBody) -> Modelfile:
    """The request as a Modelfile. Raises ApiError and StoreError."""
    for field, words in (
        ("files", "files are not taken from clients; put the file into the server's folder, and name it in from"),
        (
            "adapters",
            "adapters are not taken from clients; create the model on the server, with ADAPTER in a Modelfile",
        ),
        ("quantize", "models are not quantized by this server; name a quantized one in from"),
    ):
        if getattr(body, field):
            raise invalid(f"{field}: {words}", field)
    if body.modelfile:
        modelfile = parse_modelfile(body.modelfile, "modelfile")
        if modelfile.adapters:
            # A path in the request would name a file of the server.
            raise invalid("modelfile: ADAPTER is not taken from clients; create the model on the server", "modelfile")
        return modelfile
    if not body.base:
        raise invalid("from: the model is missing that settings are to come over", "from")
    parameters: dict[str, Any] = {}
    for key, value in (body.parameters or {}).items():
        try:
            values = value if key == "stop" and isinstance(value, list) else [value]
            checked = [value_of(key, one) for one in values]
        except ValueError as error:
            raise invalid(f"parameters: {error}", "parameters") from None
        parameters[key] = checked if key == "stop" else checked[0]
    for message in body.messages or ():
        if message.role not in ROLES:
            raise invalid(f"messages: the role is {message.role}; expected {', '.join(ROLES)}", "messages")
    licenses = [body.license] if isinstance(body.license, str) else body.license or []
    return Modelfile(
        body.base, parameters, body.system, body.template,
        tuple((message.role, message.content or "") for message in body.messages or ()), tuple(licenses),
    )  # fmt: skip


async def delete(call: Call) -> Response:
    """Remove a model from the store."""
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
