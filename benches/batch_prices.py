"""What steps over several sequences cost, in steps of one, beside what the machine allows, as a Markdown table.

    python benches/batch_prices.py MODEL.gguf ... [--rounds 15] [--threads 2] [--context 64] [--processor-time]

"sequences" is a step in which each of n sequences gets one token; "draft" is a pass over n tokens of one sequence with
the logits of all, as when a draft is verified. Every round runs all sizes one after the other, so that a slow minute of
a shared machine hits all of them; the best of each counts. `--processor-time` counts the time of the processor instead
of that of the wall, for machines that do other work, too: with one thread, since waiting threads take some as well.

"bound" is the least that a step can cost: the longer of reading all weights once at the read bandwidth and of
multiplying them with n tokens at the peak of the instruction set's dot products, both measured in the same run, in
steps of the one that was measured. It leaves out attention and everything else that is no product of weights.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import llamacpu
from compare import limits, processor
from llamacpu.cli.bench import bytes_per_token
from llamacpu.engine import machine

Clock = Callable[[], float]
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)


def best_of(rounds: int, step: Callable[[int], float]) -> dict[int, float]:
    """Return the best seconds of a step by its size; `step` runs one of them and returns its seconds."""
    best = dict.fromkeys(SIZES, float("inf"))
    for _ in range(rounds):
        for size in SIZES:
            best[size] = min(best[size], step(size))
    return best


def of_sequences(model: llamacpu.Model, context: int, rounds: int, clock: Clock) -> dict[int, float]:
    """Return the seconds of a step in which n sequences of `context` tokens get one token each."""
    ids = [(7919 * place + 1) % model.vocab_size for place in range(context + max(SIZES))]
    sessions = [model.session(context + 1) for _ in range(max(SIZES))]
    for start, session in enumerate(sessions):
        session.forward(ids[start : start + context], logits="none")

    def step(size: int) -> float:
        items = [(session, [ids[index]]) for index, session in enumerate(sessions[:size])]
        started = clock()
        model.step(items)
        seconds = clock() - started
        for session in sessions[:size]:
            session.truncate(context)
        return seconds

    return best_of(rounds, step)


def of_drafts(model: llamacpu.Model, context: int, rounds: int, clock: Clock) -> dict[int, float]:
    """Return the seconds of a pass over n tokens of one sequence, with the logits of all, after `context` tokens."""
    ids = [(7919 * place + 1) % model.vocab_size for place in range(context)]
    session = model.session(context + max(SIZES))
    session.forward(ids, logits="none")

    def step(size: int) -> float:
        started = clock()
        session.forward(ids[:size], logits="all")
        seconds = clock() - started
        session.truncate(context)
        return seconds

    return best_of(rounds, step)


def bounds(model: llamacpu.Model, threads: int) -> dict[int, float]:
    """Return the least seconds of a step by its number of tokens: of reading the weights, or of the products."""
    peak, bandwidth = limits(threads)
    read = bytes_per_token(model) / bandwidth / 1e9
    matrices = [tensor for tensor in model.file.tensors if len(tensor.shape) > 1]
    # Embeddings that are not the output matrix as well are looked up, not multiplied.
    tied = not any(tensor.name.startswith("output.") for tensor in matrices)
    products = sum(math.prod(tensor.shape) for tensor in matrices if tied or not tensor.name.startswith("token_embd"))
    return {size: max(read, products * size / peak / 1e9) for size in SIZES}


def print_rows(path: Path, options: argparse.Namespace) -> None:
    """Measure a file and print its rows."""
    clock = time.process_time if options.processor_time else time.perf_counter
    with llamacpu.Model(path, threads=options.threads) as model:
        sequences = of_sequences(model, options.context, options.rounds, clock)
        drafts = of_drafts(model, options.context, options.rounds, clock)
        least = bounds(model, options.threads)
    for name, seconds, one in (
        ("sequences", sequences, sequences[1]),
        ("draft", drafts, drafts[1]),
        ("bound", least, sequences[1]),
    ):
        cells = " | ".join(f"{seconds[size] / one:.2f}" for size in SIZES)
        print(f"| {path.stem} | {name} | {seconds[1] * 1e3:.1f} | {cells} |", flush=True)


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--context", type=int, default=64, help="tokens before those of the step")
    parser.add_argument("--processor-time", action="store_true", help="time of the processor instead of the wall's")
    options = parser.parse_args()
    print(f"{processor()}, {options.threads} threads, {machine.describe()['isa']}; ", end="")
    print(f"llamacpu {llamacpu.__version__}; best of {options.rounds} rounds, {options.context} tokens before.\n")
    print("| file | tokens of a step | ms of one | " + " | ".join(str(size) for size in SIZES) + " |")
    print("|---" * (len(SIZES) + 3) + "|")
    for path in options.models:
        print_rows(path, options)


if __name__ == "__main__":
    main()
