"""Fetches pictures from public addresses on the web, and from no others.

A message may come from somebody who can reach this program but not its machine or network. Every connection, those
after redirects included, is made to an address that was resolved and found to be public, so that neither a name nor a
redirect leads into the network.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from llamacpu.errors import PictureError
from llamacpu.pictures.picture import PictureLimits
from llamacpu.store.places import offline

__all__ = ["fetch"]

_SECONDS = 30.0
_PIECE = 1 << 16


def fetch(url: str, limits: PictureLimits) -> bytes:
    """The file at an address. Raises PictureError if it is not public, does not answer, or sends too much."""
    host = urlsplit(url).hostname
    if offline():
        raise PictureError(
            f"cannot fetch a picture from {host}: the network is switched off (HF_HUB_OFFLINE or LLAMACPU_OFFLINE)"
        )
    opener = urllib.request.OpenerDirector()
    for handler in _HANDLERS:
        opener.add_handler(handler())
    until = time.monotonic() + _SECONDS
    request = urllib.request.Request(url, headers={"Accept": "image/*", "User-Agent": "llamacpu"})
    try:
        with opener.open(request, timeout=_SECONDS) as answer:
            return _read(answer, limits, until)
    except urllib.error.HTTPError as error:
        error.close()
        raise PictureError(f"cannot fetch a picture: {host} answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, PictureError):
            raise reason from None
        if isinstance(error, PictureError):
            raise
        raise PictureError(f"cannot fetch a picture from {host}: {reason}") from None


def _read(answer: Any, limits: PictureLimits, until: float) -> bytes:
    found = bytearray()
    while piece := answer.read(_PIECE):
        found += piece
        limits.check_bytes(len(found))
        if time.monotonic() > until:
            raise PictureError(f"the server took more than {_SECONDS:.0f} seconds for a picture")
    return bytes(found)


def _connect(address: tuple[str, int], timeout: float | None = None, source_address: Any = None) -> socket.socket:
    """A connection to a public address; the one that was checked, since a second look-up may find another."""
    host, port = address
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    for *_, place in found:
        if not _is_public(str(place[0])):
            raise PictureError(f"pictures are not fetched from {host}: it lies inside of this machine or its network")
    return socket.create_connection(found[0][4][:2], timeout, source_address)  # type: ignore[arg-type]


def _is_public(address: str) -> bool:
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None) or getattr(found, "sixtofour", None)
    return found.is_global and not found.is_multicast and (mapped is None or mapped.is_global)


class _HttpConnection(http.client.HTTPConnection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = _connect


class _HttpsConnection(http.client.HTTPSConnection):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._create_connection = _connect


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpConnection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_HttpsConnection, req)


class _Redirects(urllib.request.HTTPRedirectHandler):
    max_redirections = 5


# Neither files nor ftp, and no proxy, whose place would be checked instead of the server's.
_HANDLERS = (
    _Http, _Https, _Redirects, urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
)  # fmt: skip
