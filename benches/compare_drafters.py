"""What a pass with proposals of a drafter costs, beside llama-server with the same files.

    python benches/compare_drafters.py MODEL.gguf eagle3|dflash|mtp DRAFTER.gguf|self --llama-server PATH/llama-server

benches/big_drafters.py writes drafters; "mtp" is what llama-server calls multi-token prediction, by layers in the file
of the model ("self"; the shape qwen3-next-80b-a3b-5-layers of benches/big_models.py has one) or Gemma 4's assistant.
Their proposals are right only by chance: every pass proposes tokens, verifies them and keeps one token, so the price of
a pass in passes without a drafter is also the number of tokens that a pass would have to keep to gain anything. Plain
text, then text with the drafter, of both programs in turn; the best round of each counts.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import llamacpu
from llamacpu.drafting import LearnedDraft
from llamacpu.generation import generate

PROMPT = [(7919 * place + 1) % 30_000 for place in range(48)]


def start(arguments: list[str]) -> tuple[subprocess.Popen[bytes], int]:
    """Start a llama-server and return it and its port when it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([*arguments, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"llama-server has ended with status {server.returncode}: {' '.join(arguments)}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return server, port
        except OSError:
            time.sleep(0.2)
    raise SystemExit("llama-server does not answer")


def ask(port: int, tokens: int) -> float:
    """Return the seconds of a pass of a llama-server."""
    body = {"prompt": PROMPT, "n_predict": tokens, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=600) as response:
        timings: dict[str, Any] = json.load(response)["timings"]
    return float(timings["predicted_ms"]) / 1e3 / (tokens - int(timings.get("draft_n_accepted", 0)))


def write(model: llamacpu.Model, draft: LearnedDraft | None, tokens: int) -> float:
    """Return the seconds of a pass of ours."""
    greedy = llamacpu.Sampling(temperature=0)
    timings = generate(model, PROMPT, sampling=greedy, draft=draft, max_tokens=tokens, ignore_end=True).read().timings
    return (tokens - 1) / (timings.tokens_per_second or float("inf")) / timings.steps


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("kind", choices=["eagle3", "dflash", "mtp"])
    parser.add_argument("drafter")
    parser.add_argument("--llama-server", type=Path, required=True)
    parser.add_argument("--proposals", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    threads = str(given.threads)
    plain = [str(given.llama_server), "-m", str(given.model), "-t", threads, "-tb", threads, "-c", "512", "-np", "1"]
    speculative = ["--spec-type", f"draft-{given.kind}", "-td", threads, "-tbd", threads]
    speculative += [] if given.drafter == "self" else ["-md", given.drafter]
    speculative += ["--spec-draft-n-max", str(given.proposals), "--spec-draft-p-min", "0"]
    servers = [start(plain)]
    best = [float("inf")] * 4
    try:
        servers.append(start([*plain, *speculative]))
        with llamacpu.Model(given.model, threads=given.threads) as model:
            draft = LearnedDraft(model, given.drafter, given.proposals, adaptive=False, least_chance=0.0)
            for _ in range(given.rounds):
                found = [*(ask(port, given.tokens) for _, port in servers)]
                found += [write(model, None, given.tokens), write(model, draft, given.tokens)]
                best = [min(pair) for pair in zip(best, found, strict=True)]
            draft.close()
    finally:
        for server, _ in servers:
            server.terminate()
            server.wait()
    print(f"{given.kind}, {given.proposals} proposals: ms of a pass without and with, and the second by the first\n")
    print("| program | without | with | ratio |\n|---|---|---|---|")
    for name, without, drafted in (("llama-server", *best[:2]), ("llamacpu", *best[2:])):
        print(f"| {name} | {without * 1e3:.1f} | {drafted * 1e3:.1f} | {drafted / without:.2f} |")


if __name__ == "__main__":
    main()
