"""HTTP requests forwarded to a replica, and its responses passed back; independent of Ray."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from llamacpu.ray.affinity import prefix_key
from llamacpu.server.bodies import read
from llamacpu.server.errors import ApiError, told
from llamacpu.server.security import own_path
from llamacpu.server.streams import JsonResponse, encoded, server_sent

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from llamacpu.server.settings import Settings

__all__ = ["Forwarding", "ReplicaLost", "answered"]

log: logging.Logger = logging.getLogger("llamacpu.ray")

Ask = Callable[[str, dict[str, Any], bytes], AsyncIterator[list[dict[str, Any]]]]
"""Calls a replica: the prefix key, the scope and the body of a request -> ASGI messages as they arrive."""

_TRIES = 3
# The entries of an ASGI scope that are not objects of the server that made it.
_SENT = (
    "type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path", "headers", "client",
    "server",
)  # fmt: skip


class ReplicaLost(Exception):  # noqa: N818 (the caller decides whether it is an error)
    """The replica that was called is gone."""


class Forwarding:
    """An ASGI application that responds with the responses of replicas.

    A request whose replica dies before responding is given to another one. A stream that has begun ends with an error
    in the format of its API: sampled text from another replica would not continue it consistently, and this way the
    client can tell that the answer is incomplete.
    """

    def __init__(self, ask: Ask, settings: Settings) -> None:
        self._ask = ask
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, determine the prefix key, and forward the request."""
        if scope["type"] != "http":
            return
        path = own_path(scope)
        kind: str | None = None

        async def handing(message: Message) -> None:
            nonlocal kind
            if message["type"] == "http.response.start":
                fields = {name.lower(): value for name, value in message.get("headers", [])}
                kind = fields.get(b"content-type", b"").decode("latin-1")
            await send(message)

        try:
            body = await read(Request(scope, receive), self._settings)
            asked = {name: scope[name] for name in _SENT if name in scope}
            await self._hand_on(prefix_key(path, body), asked, body, handing, lambda: kind is not None)
        except Exception as failure:
            error = told(failure)
            if kind is None:
                await JsonResponse(error.shaped(path), error.status, error.headers)(scope, receive, send)
                return
            last = _last_piece(error, path, kind)
            if last is None:
                # Half a document: only a broken connection can signal that.
                raise
            await send({"type": "http.response.body", "body": last.encode(), "more_body": False})

    async def _hand_on(
        self, key: str, asked: dict[str, Any], body: bytes, send: Send, begun: Callable[[], bool]
    ) -> None:
        # A DELETE is not retried: the second time, the resource would no longer exist.
        tries = 1 if asked["method"] == "DELETE" else _TRIES
        for left in reversed(range(tries)):
            try:
                async for messages in self._ask(key, asked, body):
                    for message in messages:
                        await send(message)
                return
            except ReplicaLost:
                if begun():
                    raise ApiError(
                        503, "the replica that wrote this answer is gone; ask again", code="replica_lost", retry_after=1
                    ) from None
                if not left:
                    raise ApiError(
                        503, "the replica that was asked is gone; ask again", code="replica_lost", retry_after=1
                    ) from None
                log.warning("a replica was lost before it had answered; another one is asked")


async def answered(app: ASGIApp, scope: dict[str, Any], body: bytes) -> AsyncIterator[list[Message]]:
    """Yield an ASGI application's response to a request with a complete body: lists of the messages available so far.

    If the iterator is closed before its end, the application is told that its client has disconnected.
    """
    queue: asyncio.Queue[Message | None] = asyncio.Queue()
    gone = asyncio.Event()
    given = False

    async def receive() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await queue.put(message)

    async def run() -> None:
        try:
            await app({**scope, "asgi": {"version": "3.0"}}, receive, send)
        finally:
            queue.put_nowait(None)

    running = asyncio.ensure_future(run())
    try:
        ended = False
        while not ended:
            found = [await queue.get()]
            while not queue.empty():
                found.append(queue.get_nowait())
            ended = None in found
            messages = [message for message in found if message is not None]
            if messages:
                yield messages
        await running
    finally:
        gone.set()
        # The application ends within a step of the model; until then the replica counts as busy.
        await asyncio.wait({running})


def _last_piece(error: ApiError, path: str, kind: str) -> str | None:
    """Return the last piece of a stream that fails, in the format of its API; None if it is not a stream."""
    if kind.startswith("application/x-ndjson"):
        return encoded(error.shaped(path)) + "\n"
    if not kind.startswith("text/event-stream"):
        return None
    if path.startswith("/v1/responses"):
        return server_sent({"type": "error", "code": "server_error", "message": error.message, "param": None}, "error")
    return server_sent(error.shaped(path), "error" if path.startswith("/v1/messages") else None)
