"""The chat page: files of the package, read once and served under fixed paths. No client path is ever opened."""

from __future__ import annotations

import mimetypes
from importlib import resources
from importlib.resources.abc import Traversable
from typing import TYPE_CHECKING

from starlette.responses import Response
from starlette.routing import Route

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

__all__ = ["POLICY", "page_routes"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy: nothing from other hosts, only the page's own scripts, no embedding in frames."""

_HEADERS = {"content-security-policy": POLICY, "x-frame-options": "DENY", "cache-control": "no-cache"}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".html": "text/html"}


def page_routes(ollama: bool) -> list[Route]:
    """Return a route for every file of the page, and `/` for its index.html; none if the package has no page.

    ollama: at `/`, clients that do not accept HTML get "Ollama is running", even if there is no page.
    """
    folder = resources.files("llamacpu.server") / "page"
    if not folder.is_dir():
        return [Route("/", _running, methods=["GET"])] if ollama else []
    found = {f"/{name}": file.read_bytes() for name, file in _files(folder)}
    routes = [_route(path, data) for path, data in found.items()]
    index = found.get("/index.html")
    if index is None:
        return routes
    page = _route("/", index, "/index.html")

    async def either(request: Request) -> Response:
        wants_html = "text/html" in request.headers.get("accept", "")
        found: Response = await (page.endpoint if wants_html or not ollama else _running)(request)
        return found

    return [Route("/", either, methods=["GET"]), *routes]


async def _running(request: Request) -> Response:
    request.scope["llamacpu.path"] = "/"
    return Response("Ollama is running", media_type="text/plain")


def _files(folder: Traversable, before: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = before + entry.name
        if entry.is_dir() and not entry.name.startswith(("_", ".")):
            yield from _files(entry, name + "/")
        elif entry.is_file() and not entry.name.endswith((".py", ".md")):
            yield name, entry


def _route(path: str, data: bytes, name: str | None = None) -> Route:
    ending = "." + (name or path).rpartition(".")[2]
    kind = _TYPES.get(ending) or mimetypes.guess_type(name or path)[0] or "text/plain"

    async def answer(request: Request) -> Response:
        request.scope["llamacpu.path"] = "/"
        return Response(data, headers=_HEADERS, media_type=kind)

    return Route(path, answer, methods=["GET"])
