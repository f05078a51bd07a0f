"""`llamacpu serve` beside llama.cpp's `llama-server`, with many streams, interleaved in one run, as a table.

    python benches/compare_serving.py MODEL.gguf [--llama-server PATH] [--streams 1,4,8,16] [--rounds 3] [--threads 2]

Three servers run on loopback: ours, and llama-server with its defaults and with `-np 16` (ours alone without the path).
Streams begin together with a prompt of 200 tokens that they share and eight of their own, in ids, and write `--tokens`
tokens each, greedily; no prompt is sent to a server twice. For each number of streams the servers are asked one after
the other, and the round with the most tokens a second of each counts. In the table: tokens/s of all streams together
from the first request to the last answer; 50th and 95th percentile of the time to the first event of a stream and
between its events. llama-server has `-c 16384` in both cases, because the context of the model would take more memory
than a machine may have.

At the end the model is opened once more, without a server, and every stream of our last round of each number of streams
is written alone: its text must be the same, or the program ends with an error that names the stream.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from compare import processor
from llamacpu import GGUFFile, Model, Sampling

SHARED, OWN = 200, 8
OURS, DEFAULT, PARALLEL = "llamacpu serve", "llama-server", "llama-server -np 16"


@dataclass
class Round:
    """The results of one server with one number of streams; seconds and texts are lists with one entry per stream."""

    tokens_per_second: float
    seconds: list[list[float]]
    texts: list[str]


@contextmanager
def server(command: list[str], port: int, log: Path) -> Iterator[str]:
    """Run a server until the block ends, and yield its URL once it reports that it is ready."""
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as output, subprocess.Popen(command, stdout=output, stderr=output) as process:
        try:
            for _ in range(600):
                if process.poll() is not None:
                    raise SystemExit(f"{' '.join(command)} ended: {log.read_text()[-500:]}")
                try:
                    if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def prompts(streams: int, seed: int, vocabulary: int) -> list[list[int]]:
    """Return prompts with a common prefix."""
    ids = np.random.default_rng([streams, seed]).integers(100, vocabulary, SHARED + streams * OWN).tolist()
    return [ids[:SHARED] + ids[SHARED + OWN * number :][:OWN] for number in range(streams)]


async def stream(client: httpx.AsyncClient, url: str, ids: list[int], tokens: int) -> tuple[list[float], str]:
    """Return the times of the events of one answer, and its text."""
    asked = {"prompt": ids, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "stream": True}
    times, lines = [], []
    async with client.stream("POST", f"{url}/completion", json=asked) as answer:
        answer.raise_for_status()
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                times.append(time.perf_counter())
                lines.append(line)
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    written = events[-1]["tokens_predicted"]
    if written != tokens:
        raise SystemExit(f"{url} wrote {written} tokens instead of {tokens}")
    return times, "".join(event["content"] for event in events)


async def measure(url: str, tokens: int, asked: list[list[int]]) -> Round:
    """Run one round of one server."""
    limits = httpx.Limits(max_connections=len(asked))
    async with httpx.AsyncClient(timeout=600, limits=limits) as client:
        started = time.perf_counter()
        found = await asyncio.gather(*(stream(client, url, ids, tokens) for ids in asked))
        seconds = time.perf_counter() - started
    times = [[moment - started for moment in row] for row, _ in found]
    return Round(len(asked) * tokens / seconds, times, [text for _, text in found])


def row(streams: int, name: str, best: Round, ratio: str) -> str:
    """Return a row of the table."""
    first = np.quantile([times[0] for times in best.seconds], [0.5, 0.95])
    between = 1000 * np.quantile(np.concatenate([np.diff(times) for times in best.seconds]), [0.5, 0.95])
    return (
        f"| {streams} | {name} | {best.tokens_per_second:.1f} | {first[0]:.2f} / {first[1]:.2f} s | "
        f"{between[0]:.0f} / {between[1]:.0f} ms | {ratio} |"
    )


def commands(options: argparse.Namespace) -> dict[str, tuple[list[str], int]]:
    """Return the command lines and ports of the servers."""
    ports = [free_port() for _ in range(3)]
    model, threads = str(options.model), str(options.threads)
    own = [sys.executable, "-m", "llamacpu", "serve", model, "--threads", threads, "--port", str(ports[0])]
    if options.llama_server is None:
        return {OURS: (own, ports[0])}
    peer = [str(options.llama_server), "-m", model, "-t", threads, "-c", "16384", "--port"]
    return {
        OURS: (own, ports[0]),
        DEFAULT: ([*peer, str(ports[1])], ports[1]),
        PARALLEL: ([*peer, str(ports[2]), "-np", "16"], ports[2]),
    }


def check_texts(path: Path, threads: int, tokens: int, texts: list[tuple[list[int], str]]) -> None:
    """Exit if a stream among many produced a different text than it does alone. texts: prompts with their answers."""
    with Model(path, threads=threads) as model:
        for number, (ids, text) in enumerate(texts, 1):
            alone = model.generate(ids, max_tokens=tokens, sampling=Sampling(temperature=0), ignore_end=True).read()
            if alone.text != text:
                raise SystemExit(f"stream {number} of {len(texts)} wrote {text!r}; alone it is {alone.text!r}")
    print(f"\n{len(texts)} streams of {OURS} have the text of their run alone.")


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--llama-server", type=Path, help="path of llama.cpp's llama-server")
    parser.add_argument("--streams", default="1,4,8,16")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--logs", type=Path, default=Path(), help="folder for what the servers say")
    options = parser.parse_args()
    texts: list[tuple[list[int], str]] = []
    with GGUFFile(options.model) as file:
        # Some tokens that are not text come after all others.
        vocabulary = min(len(file.metadata["tokenizer.ggml.tokens"]) - 100, 30000)
    with ExitStack() as running:
        urls = {
            name: running.enter_context(server(command, port, options.logs / f"server-{port}.log"))
            for name, (command, port) in commands(options).items()
        }
        for url in urls.values():
            asyncio.run(measure(url, 4, prompts(2, 0, vocabulary)))
        print(f"{processor()}, {options.threads} threads, best of {options.rounds} rounds, interleaved.\n")
        print("| streams | server | tokens/s | first token, 50 % / 95 % | between tokens, 50 % / 95 % | ratio |")
        print("|---|---|---|---|---|---|")
        for streams in map(int, options.streams.split(",")):
            best: dict[str, Round] = {}
            for number in range(1, options.rounds + 1):
                asked = prompts(streams, number, vocabulary)
                for name, url in urls.items():
                    found = asyncio.run(measure(url, options.tokens, asked))
                    if name == OURS and number == options.rounds:
                        texts += zip(asked, found.texts, strict=True)
                    if name not in best or found.tokens_per_second > best[name].tokens_per_second:
                        best[name] = found
            others = max((best[name].tokens_per_second for name in urls if name != OURS), default=0.0)
            for name, found in best.items():
                ratio = f"{found.tokens_per_second / others:.2f}" if name == OURS and others else ""
                print(row(streams, name, found, ratio), flush=True)
    check_texts(options.model, options.threads, options.tokens, texts)


if __name__ == "__main__":
    main()
