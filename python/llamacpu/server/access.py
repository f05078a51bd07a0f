"""The access log and the metrics of requests. Neither contains any text of prompts or answers."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from llamacpu.server.streams import Gone

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from llamacpu.server.metrics import Metrics

__all__ = ["Access"]

log: logging.Logger = logging.getLogger("llamacpu.server.access")


class Access:
    """ASGI middleware that logs and counts requests, and ends those whose client has disconnected."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, then log and count it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        status, sent = 499, 0

        async def sending(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Gone:
            pass
        finally:
            seconds = time.monotonic() - started
            # The pattern of the path, not the path that a client made up, which would make the set of labels unbounded.
            path = scope.get("llamacpu.path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(seconds)
            client = scope["client"][0] if scope.get("client") else "-"
            log.info("%s %s %s %d %d bytes %.3f s", client, scope["method"], path, status, sent, seconds)
