"""Endpoints for operating a server: whether it is ready, and its metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from llamacpu.server.endpoints import Endpoint
from llamacpu.server.streams import JsonResponse

if TYPE_CHECKING:
    from llamacpu.server.endpoints import Call

__all__ = ["ENDPOINTS"]


async def health(call: Call) -> Response:
    """Report whether requests are answered: 200, or 503 while the first model is loading and during shutdown."""
    state = call.state
    if state.status == "ok":
        return JsonResponse({"status": "ok"})
    return JsonResponse({"status": state.status}, 503, {"retry-after": "1"})


async def metrics(call: Call) -> Response:
    """Return the metrics for Prometheus."""
    return Response(call.state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


_STATUS: dict[str, Any] = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}

ENDPOINTS = [
    Endpoint(
        method="GET", path=path, summary="Check whether the server is ready.", handler=health, response=_STATUS,
        statuses=(503,), error=lambda _error: {"status": "loading model"}, tag="Operation",
    )
    for path in ("/health", "/v1/health")
] + [
    Endpoint(
        method="GET", path="/metrics", summary="Metrics in the Prometheus text format.", handler=metrics,
        media_type="text/plain", tag="Operation",
    )
]  # fmt: skip
