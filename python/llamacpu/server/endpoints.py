"""Endpoints: what they accept and return, and how their errors are reported."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from llamacpu.server.bodies import Body, checked, parsed, read
from llamacpu.server.errors import ApiError, told
from llamacpu.server.streams import Gone, JsonResponse

if TYPE_CHECKING:
    from starlette.requests import Request

    from llamacpu.server.state import State

__all__ = ["Call", "Endpoint", "routes"]

ErrorShape = Callable[[ApiError], dict[str, Any]]


@dataclass(frozen=True)
class Call:
    """A request that is being answered."""

    state: State
    request: Request
    body: Any

    @property
    def client(self) -> str:
        """Who sent the request, for fair scheduling: the API key or the address."""
        key = self.request.headers.get("authorization") or self.request.headers.get("x-api-key")
        return key or (self.request.client.host if self.request.client else "")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One method of one path.

    body      the typed model of its body; None if it takes none
    response  JSON schema of the body of a 200 response; None for plain text
    stream    media type of its stream; None if it does not stream
    statuses  error statuses in addition to those that all endpoints have
    """

    method: str
    path: str
    summary: str
    handler: Callable[[Call], Awaitable[Response]]
    body: type[Body] | None = None
    response: Mapping[str, Any] | None = None
    stream: str | None = None
    media_type: str = "application/json"
    parameters: tuple[str, ...] = ()
    statuses: tuple[int, ...] = ()
    error: ErrorShape = field(default=ApiError.openai)
    tag: str = "OpenAI"


def routes(state: State, endpoints: list[Endpoint]) -> list[Route]:
    """Return the routes of the endpoints, one per path."""
    by_path: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        by_path.setdefault(endpoint.path, []).append(endpoint)
    return [Route(path, _answering(state, found), methods=[e.method for e in found]) for path, found in by_path.items()]


def _answering(state: State, endpoints: list[Endpoint]) -> Callable[[Request], Awaitable[Response]]:
    by_method = {endpoint.method: endpoint for endpoint in endpoints}

    async def answering(request: Request) -> Response:
        endpoint = by_method["GET" if request.method == "HEAD" and "HEAD" not in by_method else request.method]
        request.scope["llamacpu.path"] = endpoint.path
        try:
            body = None
            if endpoint.body is not None:
                data = await read(request, state.settings)
                body = checked(endpoint.body, parsed(data or b"{}", state.settings.json_depth))
            return await endpoint.handler(Call(state, request, body))
        except Exception as failure:
            if isinstance(failure, Gone):
                raise
            error = told(failure)
            return JsonResponse(endpoint.error(error), error.status, error.headers)

    return answering
