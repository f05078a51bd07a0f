"""Eight threads that generate, cancel, fork, close and drop on one model; run by test_stress.py, prints counts as JSON.

    python tests/stress_child.py SECONDS MODEL

Every text is compared with that of a single thread. Where nothing moves any more, the stacks of all threads are written
and the process ends with an error.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import random
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from llamacpu.errors import LlamaCpuError
from llamacpu.generation import CancelToken, Generation, generate
from llamacpu.llama import Llama
from llamacpu.model import Model, Session
from llamacpu.sampling import Sampling

THREADS = 8
PATIENCE_SECONDS = 60
LENGTH = 20
PROMPTS = ("Once upon a time", "Hello", "One two three four five six seven", "What can you do? " * 6)
SEEDS = range(2)


def begin(source: Model | Session, prompt: str, seed: int, cancel: CancelToken | None = None) -> Generation:
    sampling = Sampling(temperature=1.2, seed=seed)
    return generate(source, prompt, max_tokens=LENGTH, sampling=sampling, ignore_end=True, cancel=cancel)


class Stress:
    """What the threads share: the model, the right answers, and what went wrong."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model = Model(path, threads=2)
        self.llm = Llama(path, n_ctx=256, n_threads=2)
        self.texts = {(p, s): begin(self.model, p, s).read().text for p in PROMPTS for s in SEEDS}
        self.ids = {prompt: self.model.tokenizer.encode(prompt) for prompt in PROMPTS}
        self.logits = {prompt: self.model.session().forward(ids) for prompt, ids in self.ids.items()}
        self.completion = self.complete()
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.dropped: queue.SimpleQueue[object] = queue.SimpleQueue()

    def complete(self) -> str:
        found = self.llm(PROMPTS[0], max_tokens=LENGTH, temperature=1.2, seed=3)
        return str(found["choices"][0]["text"])

    def check(self, same: bool, *what: object) -> None:
        if not same:
            self.wrong.append(repr(what))

    def check_beginning(self, said: str, whole: str, *what: object) -> None:
        self.check(whole.startswith(said.rstrip("\ufffd")), *what, said, whole)


def whole(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """A generation from its beginning to its end."""
    stress.check("".join(begin(stress.model, *key)) == stress.texts[key], "whole", key)


def cancelled(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """One that another thread cancels or closes at any moment."""
    token = CancelToken()
    generation = begin(stress.model, *key, cancel=token)
    timer = threading.Timer(chance.random() * 0.02, chance.choice([token.cancel, generation.close]))
    timer.start()
    said = "".join(generation)
    timer.join()
    stress.check_beginning(said, stress.texts[key], "cancelled", key)
    stress.check(generation.result.ended_by in ("cancelled", "max_tokens"), generation.result.ended_by)


def given_up(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """One that is left in the middle; its session and itself are dropped by another thread."""
    session = stress.model.session()
    generation = begin(session, *key)
    said = "".join(piece for _, piece in zip(range(chance.randrange(8)), generation, strict=False))
    stress.check_beginning(said, stress.texts[key], "given up", key)
    stress.dropped.put((session, generation, session.fork()))


def forked(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """Forks of a session, cut at any place, go on as the session itself does."""
    session = stress.model.session()
    stress.check(begin(session, *key).read().text == stress.texts[key], "before the fork", key)
    for _ in range(2):
        fork = session.fork()
        fork.truncate(chance.randrange(fork.position + 1))
        other = chance.choice(list(stress.texts))
        stress.check(begin(fork, *other).read().text == stress.texts[other], "fork", key, other)
    stress.check(begin(session, *key).read().text == stress.texts[key], "after the fork", key)


def shared(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """Two threads on one session: one of them works, the other is refused."""
    session = stress.model.session()
    generation = begin(session, *key)
    refused: list[BaseException] = []

    def disturb() -> None:
        try:
            session.fork().truncate(0)
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=disturb)
    said = next(generation, "")
    thread.start()
    said += "".join(generation)
    thread.join()
    stress.check(said == stress.texts[key], "shared", key, said)
    stress.check(len(refused) < 2, refused)


def batched(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """Several sessions in one step have the logits that each has alone, to the last bit."""
    prompts = chance.sample(PROMPTS, chance.randrange(1, len(PROMPTS) + 1))
    rows = stress.model.step([(stress.model.session(), stress.ids[prompt]) for prompt in prompts])
    for prompt, row in zip(prompts, rows, strict=True):
        stress.check(np.array_equal(row, stress.logits[prompt]), "batched", prompt)


def own_model(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """A model that is closed while sessions exist and another thread generates with it."""
    model = Model(stress.path, threads=chance.choice([1, 2]))
    session, generation = model.session(), begin(model, *key)
    timer = threading.Timer(chance.random() * 0.02, model.close)
    timer.start()
    said = ""
    try:
        for piece in generation:
            said += piece
    except LlamaCpuError as error:
        stress.check("closed" in str(error), "another error", error)
    timer.join()
    stress.check_beginning(said, stress.texts[key], "own model", key)
    try:
        session.forward(stress.ids[key[0]])
        stress.check(False, "a session of a closed model worked")
    except LlamaCpuError:
        pass


def one_llama(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """All threads use one Llama."""
    stress.check(stress.complete() == stress.completion, "Llama")


def process(stress: Stress, chance: random.Random, key: tuple[str, int]) -> None:
    """A forked process generates with the model that it inherited, while its parent's threads go on."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # faulthandler's own clock is a thread of the parent; this one writes the stacks and ends the process.
            faulthandler.register(signal.SIGALRM, chain=True)
            signal.alarm(PATIENCE_SECONDS // 2)
            status = 0 if "".join(begin(stress.model, *key)) == stress.texts[key] else 2
        finally:
            os._exit(status)
    stress.check(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "forked process", key)


Action = Callable[[Stress, random.Random, tuple[str, int]], None]
ACTIONS: list[Action] = [whole, cancelled, given_up, forked, shared, batched, own_model, one_llama]


def work(stress: Stress, number: int, end: float) -> None:
    """One thread: an action after the other."""
    chance = random.Random(number)
    actions = [*ACTIONS, process] if hasattr(os, "fork") and sys.platform == "linux" else ACTIONS
    # Every action has its turn, however short the time; then chance decides.
    first = actions[number::THREADS]
    while first or (time.monotonic() < end and not stress.wrong):
        action = first.pop() if first else chance.choice(actions)
        try:
            action(stress, chance, chance.choice(list(stress.texts)))
        except Exception as error:
            stress.wrong.append(f"{action.__name__}: {type(error).__name__}: {error}")
        stress.counts[action.__name__] += 1


def drop(dropped: queue.SimpleQueue[object]) -> None:
    """The thread in which sessions and generations end."""
    while (found := dropped.get()) is not None:
        del found


def main() -> None:
    """Run the threads and tell what they did."""
    seconds = float(sys.argv[1])
    faulthandler.dump_traceback_later(seconds + PATIENCE_SECONDS, exit=True)
    stress = Stress(Path(sys.argv[2]))
    end = time.monotonic() + seconds
    reaper = threading.Thread(target=drop, args=(stress.dropped,))
    threads = [threading.Thread(target=work, args=(stress, number, end)) for number in range(THREADS)]
    for thread in [reaper, *threads]:
        thread.start()
    for thread in threads:
        thread.join()
    stress.dropped.put(None)
    reaper.join()
    faulthandler.cancel_dump_traceback_later()
    report: dict[str, Any] = {"counts": stress.counts, "wrong": stress.wrong}
    sys.stdout.write(json.dumps(report))


if __name__ == "__main__":
    main()
