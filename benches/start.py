"""The first token of a process whose model file is not in the page cache, beside reading the file alone.

    python benches/start.py MODEL.gguf ... [--rounds 3] [--threads 2] [--prompt TEXT] [--json FILE]

Before every cold run the file's pages are dropped from the page cache (`posix_fadvise`, POSIX_FADV_DONTNEED: no rights
are needed, and pages that another process has mapped stay). How much was left is measured by reads that may not wait
(RWF_NOWAIT) and printed: a cold run with much in the cache is none. Each round reads the file alone, as a plain
sequential read, starts a process with a cold cache and one with a warm one; the best round of each counts. Behind a
virtual disk the host may have a cache of its own, which nothing here can drop: then a later round of everything is
faster than the first.

The ratio is of the time to the first token, from the start of the process, to that of the plain read. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import results

BLOCK = 4 << 20
_SAMPLES = 500
_FIRST_TOKEN = """
import sys, llamacpu
with llamacpu.Model(sys.argv[1], threads=int(sys.argv[2])) as model:
    model.session(4096).forward(model.tokenizer.encode(sys.argv[3])).argmax()
"""


def drop(path: Path) -> None:
    """Drop the file's pages from the page cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached(path: Path) -> float:
    """Return the share of the file that is in the page cache, from samples."""
    size, page, found = path.stat().st_size, bytearray(1), 0
    places = random.Random(0)
    with path.open("rb") as file:
        for _ in range(_SAMPLES):
            with contextlib.suppress(BlockingIOError):
                found += os.preadv(file.fileno(), [page], places.randrange(size), os.RWF_NOWAIT) == 1
    return found / _SAMPLES


def plain_read(path: Path) -> float:
    """Return the seconds of one sequential read of the file, into a buffer that is used again."""
    buffer = bytearray(BLOCK)
    started = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - started


def first_token(path: Path, options: argparse.Namespace) -> float:
    """Return the seconds from the start of a process to the logits after its prompt."""
    command = [sys.executable, "-c", _FIRST_TOKEN, str(path), str(options.threads), options.prompt]
    started = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - started


def measured(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the best round of each part of one file."""
    best = {"read": float("inf"), "cold": float("inf"), "warm": float("inf")}
    left = 0.0
    for _ in range(options.rounds):
        drop(path)
        left = max(left, cached(path))
        best["read"] = min(best["read"], plain_read(path))
        drop(path)
        left = max(left, cached(path))
        best["cold"] = min(best["cold"], first_token(path, options))
        best["warm"] = min(best["warm"], first_token(path, options))
    return {"file": path.name, "bytes": path.stat().st_size, "cached": left, **best}


def main() -> None:
    """Measure every file and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    options = parser.parse_args()
    rows = [measured(path, options) for path in options.models]
    print("| file | GB | left in the cache | plain read, s (GB/s) | first token: cold | warm | cold / read |")
    print("|---|---|---|---|---|---|---|")
    for row in rows:
        size, read, cold = float(row["bytes"]) / 1e9, float(row["read"]), float(row["cold"])
        print(
            f"| {row['file']} | {size:.2f} | {100 * float(row['cached']):.0f} % | {read:.2f} ({size / read:.2f}) "
            f"| {cold:.2f} | {float(row['warm']):.2f} | {cold / read:.2f} |"
        )
    if options.json is not None:
        results.write(options.json, "start", {"rounds": options.rounds, "threads": options.threads}, rows)


if __name__ == "__main__":
    main()
