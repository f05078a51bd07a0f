"""Clients that vanish, stall or come in crowds, and signals: nothing hangs, and what is not wanted is not computed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import llamacpu

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")

CLIENT = httpx.Client(timeout=60)
DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
# It goes on until the context is full.
ENDLESS = {"messages": [{"role": "user", "content": "Tell me a story."}], "ignore_eos": True, "temperature": 0}


@pytest.fixture(scope="module", autouse=True)
def closed_client() -> Iterator[None]:
    """Its connections end with the module, and not with the interpreter."""
    yield
    CLIENT.close()


OPEN: list[socket.socket] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close what a test has opened."""
    yield
    while OPEN:
        OPEN.pop().close()


def connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    OPEN.append(socket.create_connection((parts.hostname, parts.port), timeout=60))
    return OPEN[-1]


def request(url: str, body: dict[str, Any], path: str = "/v1/chat/completions", length: int = 0) -> socket.socket:
    """A connection that has sent a request, the body announced with another length where one is given."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Length: {length or len(data)}\r\n\r\n"
    connection = connect(url)
    connection.sendall(head.encode() + data)
    return connection


def metric(url: str, name: str) -> float:
    lines = CLIENT.get(f"{url}/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.partition("{")[0] == name)


def wait_for(condition: Any) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not come to that within a minute")


@pytest.fixture
def slow_url() -> Iterator[str]:
    """A model with a context so long that an answer never ends by itself within a test."""
    settings = {"context": 100_000, "header_seconds": 1.5, "body_seconds": 1.5, "send_seconds": 1.5}
    with llamacpu.serve(DEMO, grace_seconds=0.2, ping_seconds=0.1, **settings) as url:
        yield url


@pytest.mark.parametrize("stream", [False, True])
def test_the_work_ends_when_the_client_is_gone(slow_url: str, stream: bool) -> None:
    connection = request(slow_url, {**ENDLESS, "stream": stream, "n": 2})
    wait_for(lambda: metric(slow_url, "llamacpu_requests_running") == 2)
    if stream:
        assert b"200 OK" in connection.recv(1000)
    connection.close()
    wait_for(lambda: metric(slow_url, "llamacpu_requests_running") == 0)
    assert metric(slow_url, "llamacpu_requests_cancelled_total") == 2


def test_clients_that_stall_are_let_go(slow_url: str) -> None:
    half_a_body = request(slow_url, ENDLESS, length=10_000)
    half_a_head = connect(slow_url)
    half_a_head.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n")
    silent = connect(slow_url)
    assert b"408" in half_a_body.recv(1000)
    for connection in (half_a_head, silent):
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1000) == b""
    assert httpx.get(f"{slow_url}/health").status_code == 200


def test_a_client_that_reads_nothing_ends_alone(slow_url: str) -> None:
    stalled = request(slow_url, {**ENDLESS, "stream": True, "logprobs": True, "top_logprobs": 20, "n": 8})
    stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    answer = httpx.post(f"{slow_url}/v1/chat/completions", json={**ENDLESS, "max_tokens": 8}, timeout=60)
    assert answer.status_code == 200
    wait_for(lambda: metric(slow_url, "llamacpu_requests_running") == 0)
    stalled.close()


def test_a_client_that_reads_slowly_gets_everything(demo_url: str) -> None:
    connection = request(demo_url, {**ENDLESS, "stream": True, "max_tokens": 20})
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        piece = connection.recv(7)
        assert piece
        data += piece
        time.sleep(0.0005)
    assert b"data: [DONE]" in data


def test_one_more_than_there_is_room_for_is_refused() -> None:
    with llamacpu.serve(DEMO, context=100_000, parallel=1, queue=1, grace_seconds=0) as url:
        # While the model is being loaded everything waits.
        wait_for(lambda: CLIENT.get(f"{url}/health").status_code == 200)
        held = [request(url, ENDLESS)]
        wait_for(lambda: metric(url, "llamacpu_requests_running") == 1)
        held.append(request(url, ENDLESS))
        wait_for(lambda: metric(url, "llamacpu_requests_waiting") == 1)
        for path, body in (("/v1/chat/completions", ENDLESS), ("/v1/completions", {"prompt": "x", "stream": True})):
            refused = httpx.post(url + path, json=body)
            assert refused.status_code in (429, 503)
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["code"] == "queue_full"
        for connection in held:
            connection.close()
        wait_for(lambda: metric(url, "llamacpu_requests_running") == 0)
        assert httpx.post(f"{url}/v1/completions", json={"prompt": "x", "max_tokens": 2}).status_code == 200


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_returns_to_its_level() -> None:
    """Answers, streams that are left in the middle, errors: after hundreds of them as much is resident as before."""

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def work(url: str, client: Any) -> None:
        for number in range(40):
            # Every prompt is another one, so that the prefix cache comes to its limit.
            body = {"messages": [{"role": "user", "content": f"Tell me about {number}."}], "max_tokens": 4}
            assert client.post(f"{url}/v1/chat/completions", json=body).status_code == 200
            assert client.post(f"{url}/v1/chat/completions", json={**body, "top_p": 9}).status_code == 400
            left = request(url, {**ENDLESS, "stream": True})
            left.recv(200)
            left.close()
            OPEN.remove(left)

    with llamacpu.serve(DEMO, kv_memory=16 << 20) as url, httpx.Client(timeout=60) as client:
        work(url, client)
        wait_for(lambda: metric(url, "llamacpu_requests_running") == 0)
        before = resident()
        for _ in range(2):
            work(url, client)
        wait_for(lambda: metric(url, "llamacpu_requests_running") == 0)
        assert resident() - before < 16 << 20


def test_an_answer_ends_when_its_time_is_over() -> None:
    # On a crowded machine a short time may be over before the first token.
    for seconds in (0.4, 2, 10):
        with llamacpu.serve(DEMO, context=100_000, timeout=seconds) as url:
            answer = httpx.post(f"{url}/v1/chat/completions", json=ENDLESS, timeout=60).json()
            assert answer["choices"][0]["finish_reason"] == "length"
        if answer["usage"]["completion_tokens"] > 0:
            return
    pytest.fail("no token within ten seconds")


def test_leaving_the_block_ends_streams_cleanly() -> None:
    found: list[str] = []
    begun = threading.Event()

    def read() -> None:
        with httpx.stream(
            "POST", f"{url}/v1/chat/completions", json={**ENDLESS, "stream": True}, timeout=60
        ) as response:
            for line in response.iter_lines():
                found.append(line)
                begun.set()

    with llamacpu.serve(DEMO, context=100_000, grace_seconds=0.1) as url:
        reader = threading.Thread(target=read)
        reader.start()
        assert begun.wait(60)
    reader.join(60)
    assert not reader.is_alive()
    lines = [line for line in found if line]
    assert lines[-1] == "data: [DONE]"
    assert json.loads(lines[-2].removeprefix("data: "))["choices"][0]["finish_reason"] == "length"


@pytest.mark.skipif(sys.platform == "win32", reason="no signals")
@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_under_load_ends_the_process_cleanly(number: signal.Signals, status: int) -> None:
    options = ["--port", "0", "--json", "-c", "100000", "--grace", "1s"]
    command = [sys.executable, "-m", "llamacpu", "serve", str(DEMO), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["models"] == ["demo"]
        held = [request(told["url"], {**ENDLESS, "stream": True}) for _ in range(3)]
        for connection in held:
            assert b"200 OK" in connection.recv(1000)
        short = request(told["url"], {**ENDLESS, "max_tokens": 50})
        wait_for(lambda: metric(told["url"], "llamacpu_requests_total") == 4)
        process.send_signal(number)
        assert b'"finish_reason":"length"' in short.makefile("rb").read()
        for connection in held:
            assert b"data: [DONE]" in connection.makefile("rb").read()
        assert process.wait(60) == status
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
