"""The access log and the metrics of requests. Neither holds a word of what was asked or answered."""

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
    """An ASGI application around another one that counts its requests, and ends those whose client is gone."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand on, and note."""
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
            # The pattern of the path, not what a client made up: that would be a label without end.
            path = scope.get("llamacpu.path", "other")
            self._metrics.requests.labels(path, str(status)).inc()
            self._metrics.request_seconds.labels(path).observe(seconds)
            client = scope["client"][0] if scope.get("client") else "-"
            log.info("%s %s %s %d %d bytes %.3f s", client, scope["method"], path, status, sent, seconds)
