"""HTTP for downloads: proxies, redirects that do not leak the token, retries, clear error messages."""

from __future__ import annotations

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import IO, Any, TypeVar
from urllib.parse import urlsplit

from llamacpu.errors import StoreError
from llamacpu.store.places import offline

__all__ = ["HttpError", "Response", "get", "get_json", "open_url", "patiently"]

TRIES = 5
DELAY = 0.5
"""Seconds before the second attempt; each further wait is twice as long."""
LONGEST_DELAY = 30.0
TIMEOUT = 30.0
"""Seconds without a byte after which a connection counts as lost."""
_LARGEST = 32 << 20
_AGAIN = {408, 425, 429, 500, 502, 503, 504}

Value = TypeVar("Value")
Response = Any
"""What urllib returns for an open connection: `status`, `headers`, `read`."""


class HttpError(StoreError):
    """A server refused a request. status: the status code; headers: of the response; wait: seconds it asks to wait."""

    def __init__(self, status: int, url: str, headers: Mapping[str, str], detail: str = "") -> None:
        self.status: int = status
        self.headers: Mapping[str, str] = headers
        self.detail: str = detail
        host = urlsplit(url).hostname
        words = _WORDS.get(
            status, "the server has trouble; try again later" if status >= 500 else "the request was refused"
        )
        super().__init__(f"{host} answered {status}: {words}" + (f" ({detail})" if detail else ""))

    @property
    def wait(self) -> float | None:
        """The value of Retry-After in seconds; None if it is missing or not a number."""
        try:
            return max(float(self.headers.get("Retry-After", "")), 0.0)
        except ValueError:
            return None


_WORDS = {
    401: "it wants to know who asks",
    403: "it does not allow this",
    404: "there is no such model or file",
    429: "too many requests; try again later",
}


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to http and https, never from https to http, and never sends the token to another host."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if new.scheme not in ("http", "https") or (old.scheme == "https" and new.scheme == "http"):
            raise StoreError(f"{old.hostname} redirects to {new.scheme}://{new.hostname}, which is not safe to follow")
        found = super().redirect_request(req, fp, code, msg, headers, newurl)
        if found is not None and (old.scheme, old.netloc) != (new.scheme, new.netloc):
            found.remove_header("Authorization")
        return found


def open_url(url: str, headers: Mapping[str, str] | None = None, first: int = 0, last: int | None = None) -> Response:
    """Open a GET request, from byte `first` to `last` if `last` is given. Raises StoreError if it is refused."""
    if offline():
        raise StoreError("the network is not to be used: HF_HUB_OFFLINE or LLAMACPU_OFFLINE is set")
    fields = {"User-Agent": "llamacpu", "Accept-Encoding": "identity", **(headers or {})}
    if last is not None:
        fields["Range"] = f"bytes={first}-{last}"
    try:
        request = urllib.request.Request(url, headers=fields)
        return urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            raise HttpError(error.code, url, dict(error.headers.items()), _detail(error)) from None
    except ValueError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{url} is no address that can be asked: {error}") from None


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        text = error.read(2000).decode("utf-8", "replace")
        found = json.loads(text)
        found = found.get("error") or found["errors"][0]["message"]
        return " ".join(str(found).split())[:200] if isinstance(found, str) else ""
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def patiently(
    work: Callable[[], Value],
    host: str,
    stopped: Callable[[], bool] = lambda: False,
    place: Callable[[], int] = lambda: 0,
) -> Value:
    """Return what `work` returns; retry after a delay if the connection breaks or the server has trouble.

    `place` returns how far the work has got: as long as it makes progress, attempts are not counted.
    """
    turn, delay, reached = 0, DELAY, place()
    while True:
        try:
            return work()
        except HttpError as error:
            turn = turn + 1 if place() == reached else 1
            if error.status not in _AGAIN or turn >= TRIES or stopped():
                raise
            pause = min(delay if error.wait is None else error.wait, LONGEST_DELAY)
        except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException) as error:
            turn = turn + 1 if place() == reached else 1
            reason = getattr(error, "reason", error)
            if turn >= _tries(reason) or stopped():
                words = f"{host} cannot be reached or the connection broke: {_words(reason)}"
                raise StoreError(f"{words}; check the connection and try again") from None
            pause = delay
        delay = min(2 * delay, LONGEST_DELAY) if place() == reached else DELAY
        reached = place()
        end = time.monotonic() + pause
        while time.monotonic() < end and not stopped():
            time.sleep(min(0.1, max(end - time.monotonic(), 0)))


def _tries(reason: object) -> int:
    """Return how many attempts are worthwhile: permanent errors fail at once."""
    if isinstance(reason, socket.gaierror) or type(reason).__name__ == "SSLCertVerificationError":
        return 1
    return 2 if isinstance(reason, ConnectionRefusedError) else TRIES


def _words(reason: object) -> str:
    return getattr(reason, "strerror", None) or " ".join(str(reason).split()) or type(reason).__name__


def get(url: str, headers: Mapping[str, str] | None = None, most: int = _LARGEST) -> tuple[bytes, Mapping[str, str]]:
    """Fetch the whole response and its headers. Raises StoreError if it is longer than `most` bytes."""

    def once() -> tuple[bytes, Mapping[str, str]]:
        with open_url(url, headers) as answer:
            data = bytes(answer.read(most + 1))
            if len(data) > most:
                raise StoreError(f"{urlsplit(url).hostname} answers with more than {most} bytes; expected a short text")
            return data, answer.headers

    return patiently(once, urlsplit(url).hostname or url)


def get_json(url: str, headers: Mapping[str, str] | None = None) -> Any:
    """Fetch a response and parse it as JSON."""
    data, _ = get(url, headers)
    return parsed(data, url)


def parsed(data: bytes, url: str) -> Any:
    """Parse a response as JSON. Raises StoreError if it is not JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise StoreError(
            f"{urlsplit(url).hostname} answers with something other than JSON; is this its address?"
        ) from None
