"""Other Python threads go on while a step runs: the lock of the interpreter is free."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from llamacpu import Cancelled, CancelToken, Model
from tiny_models import QUANTIZABLE, Shape

SOURCES = Path(__file__).resolve().parent.parent / "rust" / "bindings" / "src"


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


def seen_to_count(counter: Counter, work: Callable[[], object]) -> bool:
    """Whether the counter went on in some run of `work`; how often and how soon depends on the machine."""
    return any(counter.during(work) > 0 for _ in range(1000))


def test_the_counter_stands_still_while_the_lock_is_kept(counter: Counter) -> None:
    assert not any(counter.during(lambda: sum(range(1_000_000))) for _ in range(5))


def test_another_thread_counts_on_during_a_step(tiny_model: Callable[..., Path], counter: Counter) -> None:
    with Model(tiny_model("gqa", "Q4_K"), threads=1) as model:
        session = model.session(context=4096)
        prompt = [place % model.vocab_size for place in range(2048)]

        def read() -> None:
            session.truncate(0)
            session.forward(prompt, logits="none")

        assert seen_to_count(counter, read)


def test_another_thread_counts_on_while_weights_are_prepared(tiny_model: Callable[..., Path], counter: Counter) -> None:
    path = tiny_model(replace(QUANTIZABLE, feed_forward=16384, layers=1), "Q4_K")
    assert path.stat().st_size > 5_000_000, "the feed-forward network is what takes time to prepare"

    def ran_beside() -> bool:
        with Model(path, threads=1) as model:
            return counter.during(lambda: model._native.prepare(0)) > 0

    assert any(ran_beside() for _ in range(100))


def test_another_thread_stops_a_step(tiny_model: Callable[..., Path], counter: Counter) -> None:
    """Nothing else ends this one: a prompt for which no machine is fast enough."""
    with Model(tiny_model(Shape(width=512, feed_forward=1536, layers=8, context=100_000)), threads=2) as model:
        token = CancelToken()
        begins = threading.Event()
        other = threading.Thread(target=lambda: (begins.wait(), token.cancel()))
        other.start()
        begins.set()
        with pytest.raises(Cancelled):
            model.session().forward([1] * 50_000, cancel=token)
        other.join()


@pytest.mark.skipif(not SOURCES.is_dir(), reason="the sources of the extension are not here")
def test_native_work_has_one_entry() -> None:
    """Where panics are caught, the lock is given up and errors become exceptions: nowhere else."""
    paths = list(SOURCES.glob("*.rs"))
    assert "outside.rs" in {path.name for path in paths}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for word in (".detach(", "catch_unwind(", "allow_threads", "map_err(|error| error.into_python"):
            assert word not in text or path.name == "outside.rs", f"{path.name} has {word}"
