"""The socket that a server listens on."""

from __future__ import annotations

import asyncio
import socket

import pytest

listening = pytest.importorskip("llamacpu.server.listening", reason="the extra [server] is not installed")


def test_small_packets_are_sent_at_once() -> None:
    """Without TCP_NODELAY, every answer on a connection that is kept waits 40 ms for an acknowledgement."""

    async def delayed() -> bool:
        accepted: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        bound = listening.bind("127.0.0.1", 0)
        async with await asyncio.start_server(connected, sock=bound):
            _, writer = await asyncio.open_connection(*bound.getsockname()[:2])
            found = await accepted
            writer.close()
            return not found

    assert not asyncio.run(delayed())
