"""Long contexts beside llama.cpp's `llama-bench` with flash attention, interleaved in one run, as a Markdown table.

    python benches/compare_long.py MODEL.gguf [MODEL.gguf ...] --llama-bench PATH [--rounds 2] [--kv f16,q8_0]

Two things are timed for each type of keys and values: a long prompt from the start, and generation behind many
tokens of context. Each round runs us and llama.cpp (`-fa 1`, without and with `--repack 0`) one after the other; the
best round of each counts, and the ratio is to the better of the peer's settings.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from compare import PEER_SETTINGS, processor

# One process: the whole depth is processed by the same steps as any prompt, then one token a step.
OURS = """
import json, sys, time, llamacpu
path, kv_type = sys.argv[1:3]
threads, prompt, depth, generate = map(int, sys.argv[3:])
def tokens(count):
    return [5 + index * 7919 % 20000 for index in range(count)]
def seconds(session, ids):
    start = time.perf_counter()
    session.forward(ids)
    return time.perf_counter() - start
with llamacpu.Model(path, threads=threads) as model:
    seconds(model.session(64, kv_type), tokens(64))
    session = model.session(max(prompt, depth) + generate + 1, kv_type)
    rates = {"prompt": prompt / seconds(session, tokens(prompt))}
    if depth > prompt:
        session.forward(tokens(depth - prompt))
    session.truncate(depth)
    seconds(session, tokens(1))
    rates["generate"] = generate / sum(seconds(session, [5 + token]) for token in range(generate))
print(json.dumps(rates))
"""


def ours(model: Path, kv_type: str, options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one round of ours."""
    sizes = [options.threads, options.prompt_tokens, options.depth, options.generate_tokens]
    command = [sys.executable, "-c", OURS, str(model), kv_type, *map(str, sizes)]
    rates: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rates


def peer(model: Path, kv_type: str, extra: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one round of `llama-bench`."""
    command = [str(options.llama_bench), "-m", str(model), "-t", str(options.threads), "-r", "1", "-o", "json"]
    command += ["--no-warmup", "-fa", "1", "-ctk", kv_type, "-ctv", kv_type, *extra]
    parts = {
        "prompt": ["-p", str(options.prompt_tokens), "-n", "0"],
        "generate": ["-p", "0", "-n", str(options.generate_tokens), "-d", str(options.depth)],
    }
    rates = {}
    for part, sizes in parts.items():
        answer = subprocess.run([*command, *sizes], check=True, capture_output=True, text=True).stdout
        rates[part] = float(json.loads(answer)[0]["avg_ts"])
    return rates


def compare(model: Path, kv_type: str, options: argparse.Namespace) -> None:
    """Run the rounds of one file and print its rows."""
    best = {name: {"prompt": 0.0, "generate": 0.0} for name in ("llamacpu", *options.settings)}
    for _ in range(options.rounds):
        for name, rates in best.items():
            if name == "llamacpu":
                measured = ours(model, kv_type, options)
            else:
                measured = peer(model, kv_type, PEER_SETTINGS[name], options)
            rates |= {part: max(rates[part], measured[part]) for part in rates}
    for part, tokens in (("prompt", options.prompt_tokens), ("generate", options.depth)):
        own, others = best["llamacpu"][part], [best[name][part] for name in options.settings]
        text, ratio = " / ".join(f"{value:.1f}" for value in others), own / max(others)
        print(f"| {model.stem} | {kv_type} | {part}, {tokens} | {own:.1f} | {text} | {ratio:.2f} |", flush=True)


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--llama-bench", type=Path, required=True, help="path of llama.cpp's llama-bench")
    parser.add_argument("--settings", nargs="+", choices=list(PEER_SETTINGS), default=list(PEER_SETTINGS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt-tokens", type=int, default=4096)
    parser.add_argument("--depth", type=int, default=8192, help="tokens of context behind which generation is timed")
    parser.add_argument("--generate-tokens", type=int, default=32)
    parser.add_argument("--kv", default="f16,q8_0", help="types of keys and values, with commas between them")
    options = parser.parse_args()
    import llamacpu

    print(
        f"{processor()}, {options.threads} threads; llamacpu {llamacpu.__version__}; best of {options.rounds} rounds,"
    )
    print(f"best of {options.rounds} rounds, generation of {options.generate_tokens} tokens, interleaved.\n")
    print(f"| file | KV | tokens/s | llamacpu | -fa 1, {' / '.join(options.settings)} | ratio |")
    print("|---|---|---|---|---|---|")
    for model in options.models:
        for kv_type in options.kv.split(","):
            compare(model, kv_type, options)


if __name__ == "__main__":
    main()
