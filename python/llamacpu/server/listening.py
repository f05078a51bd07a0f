"""Listening: sockets, limits on the head of a request, signals and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Generator
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from llamacpu.errors import ModelError
from llamacpu.server.security import is_loopback

if TYPE_CHECKING:
    from types import TracebackType

    from llamacpu.server.application import Application

__all__ = ["Listener", "Serving", "bind", "url_of"]


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket. Raises OSError that names the address."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # asyncio turns off the delay of small packets, up to 40 ms, on sockets that say they are TCP.
        found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            if hasattr(socket, "SO_REUSEADDR") and not hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
                found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
            found.listen(1024)
        except BaseException:
            found.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        words = getattr(error, "strerror", None) or str(error)
        raise OSError(
            getattr(error, "errno", None) or 1, f"{words}; choose another --host or --port", f"{host}:{port}"
        ) from None
    return found


def url_of(listening: socket.socket) -> str:
    """Return the URL that clients use."""
    host, port = listening.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Listener(uvicorn.Server):
    """A uvicorn server that tells the application to drain before it waits for open connections."""

    def __init__(self, application: Application) -> None:
        settings = application.settings
        config = uvicorn.Config(
            application, http=_protocol(settings.header_seconds), ws="none", log_config=None, access_log=False,
            server_header=False, date_header=False, lifespan="on", timeout_keep_alive=30,
            limit_concurrency=settings.connections, h11_max_incomplete_event_size=settings.header_bytes,
            timeout_graceful_shutdown=int(settings.grace_seconds) + 8,
        )  # fmt: skip
        super().__init__(config)
        # Programs that want uvicorn's log configure it; without a handler, Python itself would print its warnings.
        logging.getLogger("uvicorn").addHandler(logging.NullHandler())
        self.application = application
        self.signal: int | None = None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests, let running answers end, and then close."""
        draining = asyncio.ensure_future(self.application.drain())
        await super().shutdown(sockets)
        await draining

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Shut down on SIGINT or SIGTERM, and end at once on a second signal."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = [signal.SIGINT, signal.SIGTERM]
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal: shut down, or end at once on the second one."""
        self.signal = self.signal or sig
        if self.should_exit:
            self.force_exit = True
            self.application.cancel()
        self.should_exit = True


class Serving:
    """A server in a thread, used as a context manager."""

    def __init__(self, application: Application, host: str, port: int) -> None:
        """Use `llamacpu.serve`."""
        if not is_loopback(host) and not application.settings.api_keys:
            raise ValueError(f"host is {host}, which others can reach, and there are no api_keys; give some")
        self.application = application
        self._address = host, port
        self._listener: Listener | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> str:
        """Start to listen, and return the URL, such as http://127.0.0.1:8080."""
        listening = bind(*self._address)
        listener = self._listener = Listener(self.application)
        url = url_of(listening)
        failed: list[BaseException] = []

        def run() -> None:
            try:
                listener.run([listening])
            except BaseException as error:
                failed.append(error)
            finally:
                listening.close()

        self._thread = threading.Thread(target=run, name="llamacpu-server", daemon=True)
        self._thread.start()
        while not listener.started and self._thread.is_alive():
            self._thread.join(0.01)
        if failed:
            words = self.application.models.failed
            raise failed[0] if words is None else ModelError(words)
        return url

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End running answers, and stop listening."""
        assert self._listener is not None
        assert self._thread is not None
        self._listener.should_exit = True
        self._thread.join()


def _protocol(seconds: float) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 protocol with a time limit, in seconds, for the head of a connection's first request."""

    class Protocol(H11Protocol):
        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._waiting = self.loop.call_later(seconds, self._too_slow)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def connection_lost(self, exc: Exception | None) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
            super().connection_lost(exc)

        def _too_slow(self) -> None:
            if self.cycle is None and not self.transport.is_closing():
                self.transport.abort()

    return Protocol
