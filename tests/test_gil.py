"""Other Python threads go on while a step runs: the lock of the interpreter is free."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llamacpu.engine.model import Model

ENOUGH = 2000


class Counter(threading.Thread):
    """Counts as often as it gets the lock, and gives it up after each time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.count = 0
        self.done = False

    def run(self) -> None:
        while not self.done:
            self.count += 1
            time.sleep(0)

    def during(self, work: Callable[[], object]) -> int:
        """How far it counts while this thread works."""
        before = self.count
        work()
        return self.count - before


@pytest.fixture
def counter() -> Iterator[Counter]:
    """A counter beside threads that nothing but their own will makes wait for each other."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    thread = Counter()
    thread.start()
    try:
        yield thread
    finally:
        thread.done = True
        thread.join()
        sys.setswitchinterval(interval)


def test_another_thread_counts_on_during_a_step(tiny_model: Callable[..., Path], counter: Counter) -> None:
    with Model(tiny_model("gqa", "Q4_K"), threads=1) as model:
        session = model.session(context=4096)
        prompt = [place % model.vocab_size for place in range(2048)]

        def read() -> None:
            session.truncate(0)
            session.forward(prompt, logits="none")

        # Work in C that keeps the lock, for comparison: the counter stands still.
        held = max(counter.during(lambda: sum(range(1_000_000))) for _ in range(5))
        assert held <= 10
        counted = 0
        for _ in range(200):
            counted += counter.during(read)
            if counted >= ENOUGH:
                break
        assert counted >= ENOUGH


def test_another_thread_counts_on_while_weights_are_prepared(tiny_model: Callable[..., Path], counter: Counter) -> None:
    counted = 0
    for _ in range(200):
        with Model(tiny_model("gqa", "Q4_K"), threads=1) as model:
            part = len(model._native.part_bytes()) - 1
            counted += counter.during(lambda model=model, part=part: model._native.prepare(part))  # type: ignore[misc]
        if counted >= 20:
            break
    assert counted >= 20
