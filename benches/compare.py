"""Our speed beside llama.cpp's `llama-bench`, interleaved in one run, as a Markdown table.

    python benches/compare.py MODEL.gguf [MODEL.gguf ...] --llama-bench PATH [--rounds 5] [--threads 2] [--memory]

Each round runs us, llama.cpp with its defaults and with `--repack 0`, one after the other, so that a slow minute of
a shared machine hits all of them; the best round of each counts. The ratio is to the better of the peer's two settings.
`--memory` adds the cold start: seconds to the first token at the model's full context, and peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

PEER_SETTINGS = {"llama.cpp": [], "llama.cpp --repack 0": ["--repack", "0"]}
PARTS = ("prompt", "generate")


def ours(model: Path, options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one round of `llamacpu bench`."""
    command = [sys.executable, "-m", "llamacpu", "bench", str(model), "--json", "--repeat", "1"]
    command += ["--threads", str(options.threads)]
    command += ["--prompt-tokens", str(options.prompt_tokens), "--generate-tokens", str(options.generate_tokens)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {part: float((answer[part] or {}).get("tokens_per_second") or 0.0) for part in PARTS}


def peer(model: Path, extra: list[str], options: argparse.Namespace) -> dict[str, float]:
    """Tokens per second of one round of `llama-bench`."""
    command = [str(options.llama_bench), "-m", str(model), "-t", str(options.threads), "-r", "1", "-o", "json"]
    command += ["-p", str(options.prompt_tokens), "-n", str(options.generate_tokens), *extra]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"generate" if row["n_gen"] else "prompt": float(row["avg_ts"]) for row in rows}


def cold_start(model: Path, threads: int) -> tuple[float, float]:
    """Seconds from process start to the first token at the full context, and peak resident memory in GB (Linux)."""
    code = (
        "import sys, llamacpu\n"
        "with llamacpu.Model(sys.argv[1], threads=int(sys.argv[2])) as model:\n"
        "    model.session().forward(model.tokenizer.encode('Once upon a time')).argmax()\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))\n"
    )
    start = time.perf_counter()
    command = [sys.executable, "-c", code, str(model), str(threads)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return time.perf_counter() - start, int(re.findall(r"(\d+) kB", answer)[0]) / 1e6


def processor() -> str:
    """The name of the processor, as the system tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def compare(model: Path, options: argparse.Namespace) -> None:
    """Run the rounds of one file and print its rows."""
    best = {name: dict.fromkeys(PARTS, 0.0) for name in ("llamacpu", *PEER_SETTINGS)}
    for _ in range(options.rounds):
        measured = {"llamacpu": ours(model, options)}
        measured |= {name: peer(model, extra, options) for name, extra in PEER_SETTINGS.items()}
        for name, row in measured.items():
            best[name] = {part: max(best[name][part], row.get(part, 0.0)) for part in PARTS}
    for part in PARTS:
        own, others = best["llamacpu"][part], [best[name][part] for name in PEER_SETTINGS]
        if own and max(others):
            text = " / ".join(f"{value:.1f}" for value in others)
            print(f"| {model.stem} | {part} | {own:.1f} | {text} | {own / max(others):.2f} |", flush=True)
    if options.memory:
        runs = [cold_start(model, options.threads) for _ in range(3)]
        seconds, memory, size = min(run[0] for run in runs), max(run[1] for run in runs), model.stat().st_size / 1e9
        print(
            f"| {model.stem} | cold start | {seconds:.2f} s, peak {memory:.2f} GB, file {size:.2f} GB | | |", flush=True
        )


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--llama-bench", type=Path, required=True, help="path of llama.cpp's llama-bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generate-tokens", type=int, default=32)
    parser.add_argument("--memory", action="store_true", help="also measure the cold start and peak memory")
    options = parser.parse_args()
    import llamacpu

    print(
        f"{processor()}, {options.threads} threads; llamacpu {llamacpu.__version__}; best of {options.rounds} rounds,"
    )
    print(f"prompt {options.prompt_tokens} tokens, generation {options.generate_tokens} tokens, interleaved.\n")
    print("| file | tokens/s | llamacpu | llama.cpp: default / --repack 0 | ratio to the better |")
    print("|---|---|---|---|---|")
    for model in options.models:
        compare(model, options)


if __name__ == "__main__":
    main()
