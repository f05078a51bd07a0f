"""The chat page: files of the package, read once, under names that are known. No path of a client is ever opened."""

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
"""Nothing from another host, no script but the page's own files, in nobody's frame."""

_HEADERS = {"content-security-policy": POLICY, "x-frame-options": "DENY", "cache-control": "no-cache"}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css", ".html": "text/html"}


def page_routes(ollama: bool) -> list[Route]:
    """A route for every file of the page, and `/` for its index.html; none where the package has no page.

    ollama: at `/` programs, which want no HTML, are told "Ollama is running".
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
