"""Responses that end when their client disconnects: whole ones that take a while, and streams."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.responses import Response

from llamacpu.server.errors import ApiError, told

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

__all__ = ["Gone", "JsonResponse", "Stream", "server_sent", "while_connected"]

log: logging.Logger = logging.getLogger("llamacpu.server")

Result = TypeVar("Result")


class Gone(Exception):  # noqa: N818 (not an error: the answer is no longer wanted)
    """The client has disconnected."""


class JsonResponse(Response):
    """A JSON response, in UTF-8."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Encode the content as JSON."""
        return encoded(content).encode()


def encoded(value: Any) -> str:
    """Return a value as JSON on one line. Unpaired surrogates, which no text should contain, are replaced."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace").decode()


def server_sent(value: Any, event: str | None = None) -> str:
    """Return a value as a server-sent event (WHATWG HTML, section 9.2)."""
    data = value if isinstance(value, str) else encoded(value)
    return (f"event: {event}\n" if event else "") + f"data: {data}\n\n"


async def while_connected(request: Request, work: Awaitable[Result], stop: Callable[[], None]) -> Result:
    """Await some work while the client is connected. Calls `stop` and raises `Gone` if the client disconnects."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Gone
    finally:
        if not working.done():
            stop()
            working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


class Stream(Response):
    """A response that sends pieces of text as they arrive. `stop` is called at the end, whatever ends the stream.

    pieces        the texts, each sent as soon as it is available
    stop          ends the work that produces them: the client disconnected or stalled, or the server shuts down
    on_error      makes the last piece of a stream that fails
    ping          a meaningless piece, sent after `ping_seconds` of silence so that no proxy gives up
    send_seconds  how long the client may read nothing
    """

    def __init__(
        self,
        pieces: AsyncIterator[str],
        stop: Callable[[], None],
        on_error: Callable[[ApiError], str],
        *,
        media_type: str = "text/event-stream",
        ping: str | None = ": ping\n\n",
        ping_seconds: float = 15.0,
        send_seconds: float = 60.0,
    ) -> None:
        super().__init__(None, 200, {"cache-control": "no-store", "x-accel-buffering": "no"}, media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._stop = stop
        self._on_error = on_error
        self._ping = ping
        self._ping_seconds = ping_seconds
        self._send_seconds = send_seconds
        # The time since which a piece is being sent, or since which nothing has been sent.
        self._since, self._sending = 0.0, False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send everything, until the client disconnects."""
        # Three tasks per stream and none per piece, so that a token costs as little as possible.
        sending = asyncio.ensure_future(self._all(send))
        watching = asyncio.ensure_future(self._watch(send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({sending, watching, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                raise Gone
            sending.result()
        finally:
            self._stop()
            for task in (sending, watching, gone):
                task.cancel()
            await asyncio.gather(sending, watching, gone, return_exceptions=True)

    async def _all(self, send: Send) -> None:
        await self._send(send, {"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        try:
            async for piece in self._pieces:
                await self._send(send, {"type": "http.response.body", "body": piece.encode(), "more_body": True})
        except Exception as error:
            last = self._on_error(told(error)).encode()
            await self._send(send, {"type": "http.response.body", "body": last, "more_body": True})
        await self._send(send, {"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, message: dict[str, Any]) -> None:
        self._since, self._sending = time.monotonic(), True
        await send(message)
        self._since, self._sending = time.monotonic(), False

    async def _watch(self, send: Send) -> None:
        """Return when the client has read nothing for too long; until then, send pings during silence."""
        begun = False
        while True:
            await asyncio.sleep(min(self._ping_seconds, self._send_seconds) / 2)
            silent = time.monotonic() - self._since
            if self._sending:
                if silent >= self._send_seconds:
                    log.info("a client took nothing for %g seconds; its stream is ended", self._send_seconds)
                    return
                continue
            begun = begun or self._since > 0
            if begun and self._ping is not None and silent >= self._ping_seconds:
                await self._send(send, {"type": "http.response.body", "body": self._ping.encode(), "more_body": True})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
