"""Our quantization of a whole file beside llama.cpp's `llama-quantize`, interleaved in one run, as a Markdown table.

    python benches/quantize_speed.py MODEL-F32.gguf PATH/llama-quantize [--types Q4_0,Q8_0] [--rounds 5] [--threads 2]

Seconds of wall-clock time and of processor time (user and system), the start of the program included, best of the
rounds. Both read the file from the system's cache and write beside it. The last column says whether all tensors have
the same bytes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from llamacpu.gguf.file import GGUFFile

TYPES = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K_M", "Q6_K")


def measured(command: list[str]) -> tuple[float, float]:
    """Wall-clock and processor seconds of a command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime


def equal(first: Path, second: Path) -> bool:
    with GGUFFile(first) as one, GGUFFile(second) as two:
        others = {tensor.name: tensor for tensor in two.tensors}
        return all(
            (other := others.get(tensor.name)) is not None
            and one.tensor_bytes(tensor, 0, tensor.nbytes) == two.tensor_bytes(other, 0, other.nbytes)
            for tensor in one.tensors
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("peer")
    parser.add_argument("--types", default=",".join(TYPES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    print("| type | llamacpu wall, CPU | llama-quantize wall, CPU | wall | CPU | equal |\n|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=Path(options.model).absolute().parent) as folder:
        ours, theirs = Path(folder) / "ours.gguf", Path(folder) / "theirs.gguf"
        for name in options.types.split(","):
            times: dict[Path, list[tuple[float, float]]] = {ours: [], theirs: []}
            for _ in range(options.rounds):
                threads = str(options.threads)
                own = [sys.executable, "-m", "llamacpu", "quantize", options.model, str(ours), name]
                times[ours].append(measured([*own, "--threads", threads]))
                times[theirs].append(measured([options.peer, options.model, str(theirs), name, threads]))
            (wall, cpu), (peer_wall, peer_cpu) = (
                tuple(min(run[index] for run in runs) for index in (0, 1)) for runs in times.values()
            )
            print(
                f"| {name} | {wall:.2f}, {cpu:.2f} | {peer_wall:.2f}, {peer_cpu:.2f} | {peer_wall / wall:.2f} x "
                f"| {peer_cpu / cpu:.2f} x | {'yes' if equal(ours, theirs) else 'no'} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
