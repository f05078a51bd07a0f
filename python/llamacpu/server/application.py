"""The ASGI application: endpoints, chat page and OpenAPI document behind the access checks."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from llamacpu.engine.duty import cycle_of
from llamacpu.engine.machine import version
from llamacpu.engine.priority import set_priority
from llamacpu.server import anthropic, llama_server, ollama, openai, operations, responses
from llamacpu.server.access import Access
from llamacpu.server.endpoints import Endpoint, routes
from llamacpu.server.errors import ApiError, told
from llamacpu.server.guard import Guard
from llamacpu.server.metrics import Metrics
from llamacpu.server.openapi import document
from llamacpu.server.page_files import page_routes
from llamacpu.server.pool import ModelPool
from llamacpu.server.running import Work
from llamacpu.server.security import Security, own_path
from llamacpu.server.sources import Stored, sources_of
from llamacpu.server.state import State
from llamacpu.server.stored import Store
from llamacpu.server.streams import JsonResponse

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

    from llamacpu.server.settings import Settings

__all__ = ["Application", "public_paths"]

log: logging.Logger = logging.getLogger("llamacpu.server")

_TIDY_SECONDS = 5.0
# Paths at which clients of other OpenAI-compatible services expect the API.
_OTHER_PATHS = (("/openai/v1/", "/v1/"), ("/chat/completions", "/v1/chat/completions"))


class Application:
    """A server as an ASGI application, to run on its own or to mount in another one.

    It loads its first model when the lifespan begins, or with the first request if it receives no lifespan events.
    """

    def __init__(self, models: Any, settings: Settings, pool: Mapping[str, Any]) -> None:
        """Use `llamacpu.server.app`."""
        # One cycle for all models: what has a limit is the machine.
        self.settings: Settings = replace(settings, duty=cycle_of(settings.duty))
        settings = self.settings
        if settings.priority is not None:
            set_priority(settings.priority)
        self.work: Work = Work()
        self.models: ModelPool = ModelPool(sources_of(models), settings, run=self.work.short, **pool["models"])
        metrics = Metrics(lambda: {served.name: served.engine.statistics for served in self.models.loaded})
        self.guard: Guard | None = None
        if pool["guard"] is not None:
            found = sources_of(pool["guard"])
            if len(found) != 1:
                raise ValueError(f"the guard is {len(found)} models: {', '.join(found)}; name the file of one")
            (source,) = found.values()
            self.guard = Guard(
                source.path if isinstance(source, Stored) else source, settings.guard_threshold, settings, self.work
            )
        store = Store(self.models) if settings.store_changes else None
        self.state: State = State(settings, self.models, self.work, metrics, self.guard, store)
        self.endpoints: list[Endpoint] = [
            *openai.ENDPOINTS, *responses.ENDPOINTS, *anthropic.ENDPOINTS, *ollama.ENDPOINTS, *llama_server.ENDPOINTS,
            *operations.ENDPOINTS,
        ]  # fmt: skip

        @functools.cache
        def described() -> dict[str, Any]:
            return document(self.endpoints, version, bool(settings.api_keys))

        async def openapi(request: Request) -> Response:
            request.scope["llamacpu.path"] = "/openapi.json"
            return JsonResponse(described())

        pages = page_routes(settings.ollama)
        self._inner = Starlette(
            routes=[*routes(self.state, self.endpoints), Route("/openapi.json", openapi), *pages],
            exception_handlers={HTTPException: _http_error, Exception: _error},
        )
        self._asgi = Access(Security(self._inner, settings, public_paths(settings)), metrics)
        self._tidying: asyncio.Task[None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._tidying is None:
            self._tidying = asyncio.ensure_future(self._tidy())
        root, asked = scope.get("root_path", ""), own_path(scope)
        for other, path in _OTHER_PATHS:
            if asked.startswith(other):
                scope = {**scope, "path": root + path + asked[len(other) :]}
                break
        await self._asgi(scope, receive, send)

    @contextlib.asynccontextmanager
    async def lifespan(self, _app: Any = None) -> AsyncIterator[None]:
        """Load the first model on entry and end running answers on exit; for the lifespan of a mounting application."""
        self.models.on_demand = False
        await self._load()
        self._tidying = asyncio.ensure_future(self._tidy())
        try:
            yield
        finally:
            await self.drain()
            self._tidying.cancel()
            self.work.close()
            self.models.close()
            if self.guard is not None:
                self.guard.close()

    async def drain(self) -> None:
        """Accept no more requests, give running answers the grace period of the settings, and then end them."""
        self.work.draining = True
        await self.models.drain(self.settings.grace_seconds)

    def cancel(self) -> None:
        """End every answer within one step. May be called from any thread."""
        self.work.draining = True
        self.models.cancel()

    async def _load(self) -> None:
        try:
            self.models.give_back(await self.models.take(None))
        except Exception as error:
            self.models.failed = told(error).message
            if len(self.models.entries) == 1:
                raise
            # Requests for this model get the error; the other models may still load.
            log.error("the first model cannot be loaded: %s", self.models.failed)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            self.models.tidy()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        begun = False
        try:
            async with self.lifespan():
                begun = True
                await send({"type": "lifespan.startup.complete"})
                await receive()
        except Exception as error:
            which = "shutdown" if begun else "startup"
            await send({"type": f"lifespan.{which}.failed", "message": told(error).message})
            return
        await send({"type": "lifespan.shutdown.complete"})


def public_paths(settings: Settings) -> set[str]:
    """Return the paths that need no key: they reveal nothing, or belong to the page, which asks for the key itself."""
    return {"/health", "/v1/health", *(page.path for page in page_routes(settings.ollama))}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    words = {404: "there is nothing at this path; /openapi.json lists what there is",
             405: "this path takes another method; /openapi.json lists what there is"}  # fmt: skip
    found = ApiError(error.status_code, words.get(error.status_code, error.detail))
    return JsonResponse(found.shaped(request.url.path), found.status, dict(error.headers or {}))


async def _error(request: Request, error: Exception) -> Response:
    found = told(error)
    return JsonResponse(found.shaped(request.url.path), found.status, found.headers)
