"""The cost of embeddings and saved sessions compared with that of a prompt, with one model.

    python benches/sessions.py MODEL.gguf [ROUNDS]

Prints one line per measurement: the best of the rounds.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from llamacpu import Model
from llamacpu.tasks.embeddings import vectors

TOKENS = 512
LENGTHS = (8, 32, 128, 512)
SAVED_TOKENS = 2048


def best(rounds: int, work: Callable[[], object]) -> float:
    """Return the seconds of the fastest run."""
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def main(path: str, rounds: int = 3) -> None:
    """Run the measurements and print the results."""
    with Model(path) as model, tempfile.TemporaryDirectory() as folder:
        tokens = np.random.default_rng(0).integers(0, model.vocab_size, TOKENS).tolist()
        model.session().forward(tokens)  # packs the weights
        print(f"prompt of {TOKENS}: {TOKENS / best(rounds, lambda: model.session().forward(tokens)):.0f} tokens/s")
        for length in LENGTHS:
            texts = [tokens[start : start + length] for start in range(0, TOKENS, length)]
            seconds = best(rounds, lambda texts=texts: list(vectors(model, texts, "mean")))  # type: ignore[misc]
            print(f"embeddings of {len(texts)} texts of {length}: {TOKENS / seconds:.0f} tokens/s")
        session = model.session(context=2 * SAVED_TOKENS)
        started = time.perf_counter()
        for _ in range(SAVED_TOKENS // TOKENS):
            session.forward(tokens, logits="none")
        print(f"prompt of {SAVED_TOKENS}: {time.perf_counter() - started:.2f} s")
        file = Path(folder) / "session"
        print(f"fingerprint: {1e3 * best(1, lambda: model.fingerprint):.1f} ms")
        saving = best(rounds, lambda: session.save(file))
        loading = best(rounds, lambda: model.load_session(file))
        size = file.stat().st_size / 1e6
        print(f"session of {SAVED_TOKENS} tokens, {size:.0f} MB: saved in {saving:.2f} s, loaded in {loading:.2f} s")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:3]))
