"""Access checks: the host that a request is addressed to, the origin it comes from, its API key."""

from __future__ import annotations

import hmac
import ipaddress
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llamacpu.server.errors import ApiError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from llamacpu.server.settings import Settings

__all__ = ["Security", "is_loopback", "own_path"]

_PORT = re.compile(r":\d{1,5}$")
_FIELDS = 200
_METHODS = "GET, POST, DELETE, HEAD, OPTIONS"
# "*" covers every header except authorization, which must be listed explicitly.
_HEADERS = "authorization, *"
_ALWAYS = ((b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"))


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def own_path(scope: Scope) -> str:
    """Return the path of a request without the prefix under which the application is mounted."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root) else path


class Security:
    """ASGI middleware that refuses requests that must not reach the application.

    A web page can make a browser send requests to this machine. It can neither choose the Host header (the page's own
    name, even if that name resolves to this machine: DNS rebinding) nor omit Origin when it reads or writes.

    public  paths that need no key: those that reveal nothing, and the page, which asks for the key itself
    """

    def __init__(self, app: ASGIApp, settings: Settings, public: Iterable[str] = ("/health",)) -> None:
        self._app = app
        self._keys = [key.encode() for key in settings.api_keys]
        self._origins = set(settings.origins)
        self._hosts = {host.lower().rstrip(".") for host in settings.hosts}
        self._public = frozenset(public)
        self._head_bytes = settings.header_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            elif scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_ALWAYS, *self._cors(origin)]}
            await send(message)

        try:
            self._check_size(scope["headers"])
            self._check_host(headers.get(b"host", ""))
            self._check_origin(origin, headers.get(b"host", ""))
            if scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
                await sending({"type": "http.response.start", "status": 204, "headers": []})
                await sending({"type": "http.response.body", "body": b""})
                return
            self._check_key(own_path(scope), headers)
        except ApiError as error:
            await _refuse(sending, error, own_path(scope))
            return
        await self._app(scope, receive, sending)

    def _check_size(self, fields: list[tuple[bytes, bytes]]) -> None:
        if sum(len(name) + len(value) + 4 for name, value in fields) > self._head_bytes or len(fields) > _FIELDS:
            raise ApiError(431, f"the head of the request has more than {self._head_bytes} bytes or {_FIELDS} fields")

    def _check_host(self, given: str) -> None:
        host = _PORT.sub("", given).lower().rstrip(".")
        if "*" in self._hosts or host in self._hosts or host == "localhost" or host.endswith(".localhost"):
            return
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            raise ApiError(
                403, f"the Host header is {given[:100]!r}; expected localhost, an address, or a name that the server "
                "was told with --allowed-host", code="host_not_allowed",
            ) from None  # fmt: skip

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or "*" in self._origins or origin in self._origins:
            return
        # A page of this server itself; the host by which it was reached has already been checked.
        if origin != "null" and urlsplit(origin).netloc.lower() == host.lower():
            return
        raise ApiError(
            403, f"the request comes from the web page {origin[:100]!r}; a server takes none from other origins than "
            "its own, unless it was told with --allowed-origin", code="origin_not_allowed",
        )  # fmt: skip

    def _check_key(self, path: str, headers: dict[bytes, str]) -> None:
        if not self._keys or path in self._public:
            return
        kind, _, bearer = headers.get(b"authorization", "").partition(" ")
        given = bearer.strip() if kind.lower() == "bearer" else headers.get(b"x-api-key", "")
        # Compare all keys, each in constant time, whatever the difference.
        matches = [hmac.compare_digest(given.encode("latin-1", "replace"), key) for key in self._keys]
        if not any(matches):
            what = "is wrong" if given else "is missing"
            raise ApiError(401, f"the API key {what}; send it as Authorization: Bearer", code="invalid_api_key")

    def _cors(self, origin: str | None) -> list[tuple[bytes, bytes]]:
        if origin is None or not ("*" in self._origins or origin in self._origins):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-allow-methods", _METHODS.encode()),
            (b"access-control-allow-headers", _HEADERS.encode()),
            (b"access-control-max-age", b"600"),
            (b"vary", b"Origin"),
        ]


async def _refuse(send: Send, error: ApiError, path: str) -> None:
    body = json.dumps(error.shaped(path)).encode()
    head = {**error.headers, "content-type": "application/json", "content-length": str(len(body))}
    fields = [(name.encode(), value.encode()) for name, value in head.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
