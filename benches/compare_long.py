"""Long contexts beside llama.cpp's `llama-bench` with flash attention, interleaved in one run, as a Markdown table.

    python benches/compare_long.py MODEL.gguf [MODEL.gguf ...] --llama-bench PATH [--rounds 2] [--kv f16,q8_0]

Two things are timed for each type of keys and values: a long prompt from the start, and generation behind many
tokens of context. Each round runs us and llama.cpp (`-fa 1`, without and with `--repack 0`) one after the other; the
best round of each counts, and the ratio is to the better of the peer's settings. Without `--llama-bench` only ours is
timed: what the types of keys and values cost. Several values of `--prompt-tokens` and `--depth` are timed one after the
other; `--json FILE` also writes the numbers, of which `plots.py` makes pictures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import results
from compare import PARTS, PEER_SETTINGS, processor

# One process: the whole depth is processed in the same steps as any prompt, then one token per step.
OURS = """
import sys, time, llamacpu
path, kv_type, part = sys.argv[1:4]
threads, size, generate = map(int, sys.argv[4:])
def tokens(count):
    return [5 + index * 7919 % 20000 for index in range(count)]
def seconds(session, ids):
    start = time.perf_counter()
    session.forward(ids)
    return time.perf_counter() - start
with llamacpu.Model(path, threads=threads) as model:
    seconds(model.session(64, kv_type), tokens(64))
    if part == "prompt":
        rate = size / seconds(model.session(size, kv_type), tokens(size))
    else:
        session = model.session(size + generate + 1, kv_type)
        session.forward(tokens(size))
        seconds(session, tokens(1))
        rate = generate / sum(seconds(session, [5 + token]) for token in range(generate))
print(rate)
"""


def ours(model: Path, kv_type: str, part: str, tokens: int, options: argparse.Namespace) -> float:
    """Return tokens per second of one round of llamacpu."""
    sizes = [options.threads, tokens, options.generate_tokens]
    command = [sys.executable, "-c", OURS, str(model), kv_type, part, *map(str, sizes)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peer(model: Path, kv_type: str, part: str, tokens: int, extra: list[str], options: argparse.Namespace) -> float:
    """Return tokens per second of one round of `llama-bench`."""
    command = [str(options.llama_bench), "-m", str(model), "-t", str(options.threads), "-r", "1", "-o", "json"]
    command += ["--no-warmup", "-fa", "1", "-ctk", kv_type, "-ctv", kv_type, *extra]
    if part == "prompt":
        command += ["-p", str(tokens), "-n", "0"]
    else:
        command += ["-p", "0", "-n", str(options.generate_tokens), "-d", str(tokens)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(json.loads(answer)[0]["avg_ts"])


def compare(model: Path, kv_type: str, part: str, tokens: int, options: argparse.Namespace) -> dict[str, Any]:
    """Run the rounds for one row of the table, print the row and return that of the results."""
    own, others = 0.0, dict.fromkeys(options.settings, 0.0)
    for _ in range(options.rounds):
        own = max(own, ours(model, kv_type, part, tokens, options))
        for name in others:
            others[name] = max(others[name], peer(model, kv_type, part, tokens, PEER_SETTINGS[name], options))
    text = " / ".join(f"{value:.1f}" for value in others.values())
    ratio = f"{own / max(others.values()):.2f}" if others else ""
    print(f"| {model.stem} | {kv_type} | {part}, {tokens} | {own:.1f} | {text} | {ratio} |", flush=True)
    return {
        "file": model.stem, "part": part, "threads": options.threads, "tokens": tokens, "kv_type": kv_type,
        "tokens_per_second": {"llamacpu": own, **others}, "ratio": own / max(others.values()) if others else None,
    }  # fmt: skip


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--llama-bench", type=Path, help="path of llama.cpp's llama-bench")
    parser.add_argument("--settings", nargs="+", choices=list(PEER_SETTINGS), default=list(PEER_SETTINGS))
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt-tokens", type=int, nargs="+", default=[4096])
    parser.add_argument(
        "--depth", type=int, nargs="+", default=[8192], help="tokens of context behind which generation is timed"
    )
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    parser.add_argument("--generate-tokens", type=int, default=32)
    parser.add_argument("--kv", default="f16,q8_0", help="types of keys and values, with commas between them")
    options = parser.parse_args()
    if options.llama_bench is None:
        options.settings = []
    import llamacpu

    print(f"{processor()}, {options.threads} threads; llamacpu {llamacpu.__version__}; generation of")
    print(f"{options.generate_tokens} tokens; best of {options.rounds} rounds, interleaved.\n")
    print(f"| file | KV | tokens/s | llamacpu | -fa 1, {' / '.join(options.settings)} | ratio |")
    print("|---|---|---|---|---|---|")
    rows = [
        compare(model, kv_type, part, tokens, options)
        for model in options.models
        for kv_type in options.kv.split(",")
        for part in options.parts
        for tokens in (options.prompt_tokens if part == "prompt" else options.depth)
    ]
    if options.json is not None:
        names = ("rounds", "threads", "generate_tokens")
        results.write(options.json, "long", {name: getattr(options, name) for name in names}, rows)


if __name__ == "__main__":
    main()
