"""The throughput of an engine with many streams, compared with bare steps of the same model.

    python benches/serving.py MODEL.gguf [STREAMS,STREAMS,...] [TOKENS]

All streams start together, each with a prompt of 200 shared tokens and eight of its own, and generate TOKENS (64)
tokens each. For each number of streams: total tokens/s of all streams, for bare steps (the shared prompt is processed
once and forked, then steps run over all sessions with greedy sampling) and for the engine, both including and excluding
prompts; and the 50th and 95th percentiles of the time to the first token and between tokens. Finally, the longest gap
between two tokens of a running stream while a prompt of 4096 tokens arrives.
"""

from __future__ import annotations

import sys
import time

import numpy as np

from llamacpu import Engine, Model, Sampling
from llamacpu.scheduler import Request

SHARED, OWN, LONG = 200, 8, 4096
GREEDY = Sampling(temperature=0)


def prompts(model: Model, streams: int) -> list[list[int]]:
    """Return prompts with a common prefix."""
    ids = np.random.default_rng(streams).integers(100, min(model.vocab_size, 30000), SHARED + streams * OWN).tolist()
    return [ids[:SHARED] + ids[SHARED + OWN * number :][:OWN] for number in range(streams)]


def bare(model: Model, streams: int, tokens: int) -> tuple[float, float, list[list[int]]]:
    """Return tokens/s of bare steps, including and excluding the prompts, and the chosen tokens."""
    asked = prompts(model, streams)
    started = time.perf_counter()
    first = model.session(context=4096)
    first.forward(asked[0][:SHARED], "none")
    sessions = [first.fork() for _ in asked]
    rows = model.step([(session, ids[SHARED:]) for session, ids in zip(sessions, asked, strict=True)])
    decoding = time.perf_counter()
    chosen = [[int(np.argmax(row))] for row in rows]
    for _ in range(tokens - 1):
        rows = model.step([(session, [ids[-1]]) for session, ids in zip(sessions, chosen, strict=True)])
        for ids, row in zip(chosen, rows, strict=True):
            ids.append(int(np.argmax(row)))
    ended = time.perf_counter()
    return streams * tokens / (ended - started), streams * (tokens - 1) / (ended - decoding), chosen


Measured = tuple[float, float, list[list[float]]]


def served(model: Model, streams: int, tokens: int, expected: list[list[int]]) -> Measured:
    """Return tokens/s of an engine, including and excluding the prompts, and the times of all tokens of each stream."""
    with Engine(model, context=4096, max_running=max(streams, 1), prepare=False) as engine:
        asked = prompts(model, streams)
        started = time.perf_counter()
        requests = [ask(engine, ids, tokens) for ids in asked]
        results = [request.read().result for request in requests]
        ended = time.perf_counter()
    if [list(result.tokens) for result in results] != expected:
        raise SystemExit("a stream has another text than alone")
    seconds = [list(result.timings.token_seconds) for result in results]
    decoding = max(times[-1] for times in seconds) - min(times[0] for times in seconds)
    return streams * tokens / (ended - started), streams * (tokens - 1) / decoding, seconds


def ask(engine: Engine, ids: list[int], tokens: int) -> Request:
    """Submit a greedy request for exactly `tokens` tokens."""
    return engine.submit(ids, sampling=GREEDY, max_tokens=tokens, ignore_end=True)


def long_prompt(model: Model) -> list[int]:
    """Return a prompt of 4096 tokens."""
    ids: list[int] = np.random.default_rng(0).integers(100, min(model.vocab_size, 30000), LONG).tolist()
    return ids


def gap(model: Model, running: int) -> str:
    """Report the longest gap of running streams while a long prompt arrives, and how long that prompt takes."""
    ids = long_prompt(model)
    with Engine(model, context=8192, prepare=False) as engine:
        streams = [ask(engine, [1, 100 + number], 4000) for number in range(running)]
        for stream in streams:
            next(stream)
        time.sleep(1)
        arrived = time.perf_counter()
        ask(engine, ids, 1).read()
        seconds = time.perf_counter() - arrived
        time.sleep(0.2)
        for stream in streams:
            stream.cancel()
        results = [stream.read().result.timings.token_seconds for stream in streams]
    gaps = np.concatenate([np.diff(times) for times in results])
    return (
        f"{running} running: a prompt of {LONG} tokens in {seconds:.1f} s, gaps between tokens of running streams: "
        f"longest {gaps.max():.3f} s, 95 % below {np.quantile(gaps, 0.95):.3f} s"
    )


def main(path: str, streams: str = "1,4,8,16", tokens: int = 64) -> None:
    """Run the measurements and print the results."""
    with Model(path) as model:
        model.prepare()
        for count in map(int, streams.split(",")):
            whole, decoding, expected = bare(model, count, tokens)
            got, got_decoding, seconds = served(model, count, tokens, expected)
            first = [times[0] for times in seconds]
            between = np.concatenate([np.diff(times) for times in seconds])
            print(
                f"{count:2} streams: {got:6.1f} tokens/s of {whole:6.1f}; without prompts {got_decoding:6.1f} of "
                f"{decoding:6.1f}; first token {np.quantile(first, 0.5):.2f} / {np.quantile(first, 0.95):.2f} s; "
                f"between tokens {1000 * np.quantile(between, 0.5):.0f} / {1000 * np.quantile(between, 0.95):.0f} ms",
                flush=True,
            )
        if model.context_length >= 2 * LONG:
            session = model.session(context=8192)
            started = time.perf_counter()
            for start in range(0, LONG, 512):
                session.forward(long_prompt(model)[start : start + 512], "none")
            print(f"nothing running: a prompt of {LONG} tokens in {time.perf_counter() - started:.1f} s")
            for running in (1, 8):
                print(gap(model, running), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], *sys.argv[2:3], *map(int, sys.argv[3:4]))
