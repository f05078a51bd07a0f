"""Our speed beside llama.cpp's `llama-bench`, interleaved in one run, as a Markdown table.

    python benches/compare.py MODEL.gguf ... --llama-bench PATH [--ik-bench PATH] [--rounds 5] [--threads 2]
        [--memory | --scaling] [--json FILE]

Each round runs us, llama.cpp with its defaults and with `--repack 0`, and ik_llama.cpp's `llama-bench` with its
defaults and with `-rtr 1` if it is given, one after the other, so that a slow minute of a shared machine hits all of
them; the best round of each counts. The ratio is to the best of the peers and their settings. The last column is our
share of the limit, measured in the same run: of the peak of the chosen instruction set's dot products for prompts
(plain weights are multiplied in f32, which has a quarter of that at most), of the read bandwidth for generation.
Of a model that makes vectors of texts, only reading is timed. `benches/big_models.py` makes files of the shapes of
published models.
`--memory` adds the cold start: seconds to the first token at the model's full context, and peak resident memory.
`--scaling` runs everything with 1, 2, 4 ... and `--threads` threads, the peers with their defaults, and prints what the
threads gain.
`--json FILE` also writes the numbers, of which `plots.py` makes pictures.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import llamacpu
import results
from llamacpu import Model
from llamacpu.cli.bench import bytes_per_token
from llamacpu.engine import machine

IK_SETTINGS: dict[str, list[str]] = {"ik_llama.cpp": [], "ik_llama.cpp -rtr 1": ["-rtr", "1"]}
PEER_SETTINGS: dict[str, list[str]] = {"llama.cpp": [], "llama.cpp --repack 0": ["--repack", "0"]}
PARTS = ("prompt", "generate")


def ours(model: Path, options: argparse.Namespace, threads: int) -> dict[str, float]:
    """Return tokens per second of one round of `llamacpu bench`."""
    command = [sys.executable, "-m", "llamacpu", "bench", str(model), "--json", "--repeat", "1"]
    command += ["--threads", str(threads), "--prompt-tokens", str(options.prompt_tokens)]
    command += ["--generate-tokens", str(0 if encodes(model) else options.generate_tokens)]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {part: float((answer[part] or {}).get("tokens_per_second") or 0.0) for part in PARTS}


def peer(program: Path, model: Path, extra: list[str], options: argparse.Namespace, threads: int) -> dict[str, float]:
    """Return tokens per second of one round of a `llama-bench`."""
    command = [str(program), "-m", str(model), "-t", str(threads), "-r", "1", "-o", "json"]
    command += ["-p", str(options.prompt_tokens), *extra]
    command += ["-n", "0", "-embd", "1"] if encodes(model) else ["-n", str(options.generate_tokens)]
    rows = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"generate" if row["n_gen"] else "prompt": float(row["avg_ts"]) for row in rows}


@functools.cache
def encodes(path: Path) -> bool:
    """Whether the model in a file only computes embeddings of whole texts and does not generate."""
    with Model(path) as model:
        return not model.config["causal"]


def cold_start(model: Path, threads: int) -> tuple[float, float]:
    """Return seconds from process start to the first token at full context, and peak resident memory in GB (Linux)."""
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
    """Return the processor name, as reported by the system."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def limits(threads: int) -> tuple[float, float]:
    """Return the peak rate of dot products in 10^9 per second and the read bandwidth in GB/s, best of two runs."""
    runs = [(machine.product_peak(threads), machine.memory_bandwidth(1 << 30, threads)) for _ in range(2)]
    return max(run[0] for run in runs), max(run[1] for run in runs)


def work(path: Path) -> tuple[float, float]:
    """Return, per token and in 10^9: multiplications in the layers (prompt), bytes of weights read (generation)."""
    with Model(path) as model:
        tensors = model.file.tensors
        experts, used = int(model.config["experts"]), int(model.config["experts_used"])
        products = 0.0
        for tensor in tensors:
            if tensor.name.startswith("blk.") and len(tensor.shape) > 1:
                share = used / experts if "_exps." in tensor.name else 1.0
                products += share * math.prod(tensor.shape)
        return products / 1e9, bytes_per_token(model) / 1e9


def programs(options: argparse.Namespace) -> dict[str, tuple[Path, list[str]]]:
    """Return the given peers, each with all of its settings, defaults first."""
    peers = {name: (options.llama_bench, extra) for name, extra in PEER_SETTINGS.items()}
    if options.ik_bench:
        peers |= {name: (options.ik_bench, extra) for name, extra in IK_SETTINGS.items()}
    return peers


def rounds(
    model: Path, options: argparse.Namespace, peers: dict[str, tuple[Path, list[str]]], threads: list[int]
) -> dict[tuple[str, int], dict[str, float]]:
    """Return the best of all rounds, which are interleaved, by program and number of threads."""
    best = {(name, count): dict.fromkeys(PARTS, 0.0) for name in ("llamacpu", *peers) for count in threads}
    for _ in range(options.rounds):
        for (name, count), found in best.items():
            row = (
                ours(model, options, count)
                if name == "llamacpu"
                else peer(peers[name][0], model, peers[name][1], options, count)
            )
            found |= {part: max(found[part], row.get(part, 0.0)) for part in PARTS}
    return best


def row_of(
    model: Path, part: str, threads: int, speeds: dict[str, float], options: argparse.Namespace
) -> dict[str, Any]:
    """Return a row of the file of results."""
    tokens = options.prompt_tokens if part == "prompt" else 0
    return {"file": model.stem, "part": part, "threads": threads, "tokens": tokens, "tokens_per_second": speeds}


def thread_counts(most: int) -> list[int]:
    """Return the powers of two below a number, and the number."""
    return [*(2**power for power in range(most.bit_length()) if 2**power < most), most]


def scaling(model: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the rounds of one file with one thread up to all threads, and print its rows; return those of the results."""
    peers = {name: found for name, found in programs(options).items() if not found[1]}
    counts = thread_counts(options.threads)
    best = rounds(model, options, peers, counts)
    for part in PARTS:
        cells = []
        for name in ("llamacpu", *peers):
            one, all_threads = best[name, 1][part], best[name, options.threads][part]
            cells.append(f"{one:.1f} to {all_threads:.1f} ({all_threads / one:.2f})" if one else "")
        print(f"| {model.stem} | {part} | {' | '.join(cells)} |", flush=True)
    return [
        row_of(model, part, count, {name: best[name, count][part] for name in ("llamacpu", *peers)}, options)
        for part in PARTS
        for count in counts
    ]


def compare(model: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run the rounds of one file, print its rows and return those of the results."""
    peers = programs(options)
    found = rounds(model, options, peers, [options.threads])
    best = {name: row for (name, _), row in found.items()}
    peak, bandwidth = limits(options.threads)
    products, traffic = work(model)
    rows = []
    for part in PARTS:
        own, others = best["llamacpu"][part], [best[name][part] for name in peers]
        if own and max(others):
            text = " / ".join(f"{value:.1f}" for value in others)
            rate, limit, unit = (products, peak, "GMAC/s") if part == "prompt" else (traffic, bandwidth, "GB/s")
            ratio = own / max(others)
            share = f"{own * rate:.1f} of {limit:.1f} {unit} ({own * rate / limit:.0%})"
            print(f"| {model.stem} | {part} | {own:.1f} | {text} | {ratio:.2f} | {share} |", flush=True)
            speeds = {name: best[name][part] for name in ("llamacpu", *peers)}
            rows.append(
                row_of(model, part, options.threads, speeds, options)
                | {"ratio": ratio, "limit": limit / rate, "share": own * rate / limit}
            )
    if options.memory:
        runs = [cold_start(model, options.threads) for _ in range(3)]
        seconds, memory, size = min(run[0] for run in runs), max(run[1] for run in runs), model.stat().st_size / 1e9
        cold = f"{seconds:.2f} s, peak {memory:.2f} GB, file {size:.2f} GB"
        print(f"| {model.stem} | cold start | {cold} | | | |", flush=True)
    return rows


def write(options: argparse.Namespace, benchmark: str, rows: list[dict[str, Any]]) -> None:
    """Write the results, if that was asked for."""
    if options.json is not None:
        names = ("rounds", "threads", "prompt_tokens", "generate_tokens")
        results.write(options.json, benchmark, {name: getattr(options, name) for name in names}, rows)


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--llama-bench", type=Path, required=True, help="path of llama.cpp's llama-bench")
    parser.add_argument("--ik-bench", type=Path, help="path of ik_llama.cpp's llama-bench")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--prompt-tokens", type=int, default=512)
    parser.add_argument("--generate-tokens", type=int, default=32)
    parser.add_argument("--memory", action="store_true", help="also measure the cold start and peak memory")
    parser.add_argument("--scaling", action="store_true", help="what --threads gain over one thread")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    print(
        f"{processor()}, {options.threads} threads; llamacpu {llamacpu.__version__}; best of {options.rounds} rounds,"
    )
    print(f"prompt {options.prompt_tokens} tokens, generation {options.generate_tokens} tokens, interleaved.\n")
    peers = programs(options)
    if options.scaling:
        names = ["llamacpu", *(name for name, (_, extra) in peers.items() if not extra)]
        print(f"| file | tokens/s, 1 to {options.threads} threads (gain) | {' | '.join(names)} |")
        print("|---" * (len(names) + 2) + "|")
    else:
        print(f"| file | tokens/s | llamacpu | {' / '.join(peers)} | ratio to the best | share of the limit |")
        print("|---|---|---|---|---|---|")
    if options.scaling:
        rows = [row for model in options.models for row in scaling(model, options)]
        write(options, "scaling", rows)
        return
    rows = [row for model in options.models for row in compare(model, options)]
    write(options, "compare", rows)
    for part in PARTS:
        ratios = [row["ratio"] for row in rows if row["part"] == part]
        if len(ratios) > 1:
            print(f"| median | {part} | | | {statistics.median(ratios):.2f} | |")


if __name__ == "__main__":
    main()
