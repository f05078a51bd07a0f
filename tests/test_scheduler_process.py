"""An engine and its process: Ctrl-C, the end of the interpreter, threads, and memory over thousands of requests."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import llamacpu
from llamacpu import Engine, Model, Overloaded, Sampling
from llamacpu.generation import generate

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
GREEDY = Sampling(temperature=0)

START = """
import sys, threading, time
import llamacpu
engine = llamacpu.Engine(sys.argv[1], max_running=4)
def slow(history, logits):
    time.sleep(0.01)
    return logits
def ask():
    return engine.submit("Once upon a time", ignore_end=True, logits_processors=(slow,))
requests = [ask() for _ in range(8)]
next(requests[0])
"""

ENDS = {
    "the end": "",
    "exit": "raise SystemExit(0)",
    "a thread that reads": """
def read():
    try:
        requests[1].read()
    except Exception as error:
        print("error", error)
threading.Thread(target=read, daemon=True).start()
time.sleep(0.05)
""",
    "a thread that is waited for": """
def read():
    assert engine.submit("x", max_tokens=5).read().finish_reason
    print("read")
for request in requests:
    request.cancel()
threading.Thread(target=read).start()
""",
    "a step of its own": """
session = engine.model.session()
def steps():
    try:
        while True:
            session.forward([7])
            session.truncate(0)
    except llamacpu.LlamaCpuError:
        print("read")
threading.Thread(target=steps, daemon=True).start()
time.sleep(0.05)
""",
    "while it loads": "engine = llamacpu.Engine(sys.argv[1])",
    "an asyncio loop that was left": """
import asyncio
async def main():
    async for _ in requests[0]:
        break
    task = asyncio.ensure_future(requests[1].read_async())
    await asyncio.sleep(0.05)
asyncio.run(main())
""",
}


def child(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", START + code, str(DEMO)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("end", ENDS)
def test_the_interpreter_ends_with_running_streams(end: str) -> None:
    process = child(ENDS[end])
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert out in ("", "read\n")


@pytest.mark.skipif(os.name == "nt", reason="sends signals as POSIX has them")
@pytest.mark.parametrize("wait", ["for _ in requests[0]: pass", "requests[0].read()", "session.forward([5] * 900)"])
def test_ctrl_c_ends_a_wait(wait: str) -> None:
    process = child(
        f"""
session = engine.model.session()
try:
    with engine:
        print("ready", flush=True)
        while True:
            {wait}
            session.truncate(0)
except KeyboardInterrupt:
    print([request.read().finish_reason for request in requests], engine.state)
"""
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
    assert out.startswith("['cancelled', ")
    assert out.endswith("closed\n")


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(DEMO) as opened:
        yield opened


def test_many_threads_submit_read_and_cancel(model: Model) -> None:
    expected = generate(model, "The cat", draft=None, sampling=GREEDY, max_tokens=12, ignore_end=True).read()
    errors: list[BaseException] = []

    def use(engine: Engine, number: int) -> None:
        try:
            for turn in range(8):
                try:
                    request = engine.submit(
                        "The cat", client=str(number), sampling=GREEDY, max_tokens=12, ignore_end=True
                    )
                except Overloaded:
                    continue
                if (number + turn) % 3 == 0:
                    request.cancel()
                result = request.read(60).result
                assert result.tokens == expected.tokens[: len(result.tokens)]
                assert result.finish_reason == "cancelled" or result.tokens == expected.tokens
        except BaseException as error:
            errors.append(error)

    with Engine(model, max_running=3, max_queue=6) as engine:
        threads = [threading.Thread(target=use, args=(engine, number)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not errors


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_stays_where_it_is_over_thousands_of_requests(model: Model) -> None:
    with Engine(model, memory=32 * model.page_bytes("f16"), max_running=4) as engine:

        def some(count: int) -> None:
            for start in range(0, count, 8):
                requests = [
                    engine.submit([1, 5 + (start + number) % 1500, 9], max_tokens=1 + number % 3, ignore_end=True)
                    for number in range(8)
                ]
                for number, request in enumerate(requests):
                    if number % 4 == 3:
                        request.cancel()
                    request.read()

        some(400)
        gc.collect()
        before, threads = resident(), threading.active_count()
        some(1000)
        gc.collect()
        assert resident() - before < 4 << 20
        assert threading.active_count() <= threads
        assert engine.statistics.kv_bytes <= engine.statistics.kv_bytes_limit
