"""A duty cycle holds the share of time in which a model computes, whoever uses the model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llamacpu
from llamacpu import Cancelled, CancelToken, Engine, Model, Sampling
from llamacpu.engine.duty import DutyCycle, working
from llamacpu.generation import generate
from llamacpu.tools.train.loop import Training
from llamacpu.tools.train.settings import TrainingSettings

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
SECONDS = st.floats(0, 3, allow_nan=False)


class Clock:
    """A time that passes only by sleep and work; every sleep is longer than asked for by `late`."""

    def __init__(self, late: float = 0.0) -> None:
        self.now, self.late, self.slept = 100.0, late, 0.0
        self.on_sleep: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.on_sleep()
        self.now += seconds + self.late
        self.slept += seconds + self.late

    def cycle(self, percent: float) -> DutyCycle:
        return DutyCycle(percent, clock=self, sleep=self.sleep)


@settings(max_examples=50, deadline=None)
@given(st.floats(1, 100), st.lists(st.tuples(SECONDS, SECONDS), max_size=60), st.floats(0, 0.01))
def test_no_more_than_the_share_at_any_time(percent: float, steps: list[tuple[float, float]], late: float) -> None:
    clock = Clock(late)
    cycle = clock.cycle(percent)
    began, busy = clock.now, 0.0
    for work, idle in steps:
        with cycle.working():
            # Before a step begins, all earlier ones are paid for, but for the credit of a quarter of a second.
            assert busy <= percent / 100 * (clock.now - began + 0.25) + 1e-6
            clock.now += work
        busy += work
        clock.now += idle


@given(st.floats(2, 99), st.lists(st.floats(0.001, 1), min_size=1, max_size=5), st.floats(0, 0.05), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_exactly_the_share_in_the_long_run(percent: float, steps: list[float], late: float, idle: float) -> None:
    clock = Clock(late)
    cycle = clock.cycle(percent)
    began, busy = clock.now, 0.0
    for number in range(100):
        work = steps[number % len(steps)]
        with cycle.working():
            clock.now += work
        busy += work
        # Less than the pause: what a program does between two steps is part of it.
        clock.now += idle * work * (100 / percent - 1)
    with cycle.working():
        wall = clock.now - began
    assert busy == pytest.approx(percent / 100 * wall, abs=0.25 + late + 1e-6)


def test_idle_time_is_not_saved_up() -> None:
    clock = Clock()
    cycle = clock.cycle(50)
    clock.now += 3600
    with cycle.working():
        clock.now += 10
    assert cycle.remaining == pytest.approx(10 - 0.25)


def test_a_limit_of_100_never_sleeps() -> None:
    clock = Clock()
    cycle = clock.cycle(100)
    for _ in range(100):
        with cycle.working():
            clock.now += 1
    assert clock.slept == 0


def test_time_of_several_threads_counts_once() -> None:
    clock = Clock()
    cycle = clock.cycle(50)
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with cycle.working():
            inside.set()
            leave.wait()

    with cycle.working():
        # Within the credit, a second thread may begin beside the first one.
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
        clock.now += 4
    clock.now += 1
    leave.set()
    thread.join()
    # Five seconds in which someone computed, and no seconds twice.
    assert cycle.remaining == pytest.approx(5 - 0.25)


def test_a_thread_waits_while_another_uses_up_the_share() -> None:
    clock = Clock()
    cycle = clock.cycle(50)
    order: list[str] = []
    leave = threading.Event()
    clock.on_sleep = leave.set

    def first() -> None:
        with cycle.working():
            order.append("first begins")
            clock.now += 2
            begun.set()
            leave.wait()
            order.append("first ends")

    begun = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with cycle.working():
        order.append("second begins")
    thread.join()
    assert order == ["first begins", "first ends", "second begins"]


def test_work_inside_work_counts_once() -> None:
    clock = Clock()
    cycle = clock.cycle(10)
    with cycle.working():
        clock.now += 1
        with cycle.working():
            clock.now += 1
    assert (clock.slept, cycle.remaining) == (0, pytest.approx(18 - 0.25))


def test_a_pause_is_cancelled() -> None:
    clock = Clock()
    cycle = clock.cycle(1)
    with cycle.working():
        clock.now += 60
    token = CancelToken()
    clock.on_sleep = token.cancel
    before = cycle.remaining
    with pytest.raises(Cancelled, match="cancelled"), cycle.working(token):
        pytest.fail("the work begins")
    assert 0 < clock.slept < 1
    # Nothing was counted, and the next one waits for the rest.
    assert cycle.remaining == pytest.approx(before - clock.slept)
    clock.on_sleep = lambda: None
    with cycle.working():
        assert clock.slept == pytest.approx(before)


def test_a_signal_ends_a_pause() -> None:
    clock = Clock()
    cycle = clock.cycle(1)
    with cycle.working():
        clock.now += 60

    def interrupt() -> None:
        raise KeyboardInterrupt

    clock.on_sleep = interrupt
    with pytest.raises(KeyboardInterrupt), cycle.working():
        pytest.fail("the work begins")
    clock.on_sleep = lambda: None
    with cycle.working():
        pass


@pytest.mark.parametrize("percent", [0, -5, 100.5, float("nan"), float("inf")])
def test_shares_outside_the_range(percent: float) -> None:
    with pytest.raises(ValueError, match=r"expected a percentage above 0 and at most 100"):
        DutyCycle(percent)


@pytest.mark.parametrize("given", ["50", True, [1]])
def test_a_share_is_a_number(given: Any) -> None:
    with pytest.raises(TypeError, match="duty is"):
        Model(DEMO, duty=given)


class Counting(DutyCycle):
    """Notes how often work began, and never pauses."""

    def __init__(self) -> None:
        super().__init__(100)
        self.begun = 0

    @contextmanager
    def working(self, cancel: CancelToken | None = None) -> Iterator[None]:
        self.begun += 1
        yield


def test_every_pass_through_a_model_is_work() -> None:
    counting = Counting()
    with Model(DEMO, threads=1, duty=counting) as model:
        assert model.duty is counting
        session = model.session()
        for number, run in enumerate(
            (
                lambda: session.forward([5, 6]),
                lambda: session.hidden([7]),
                lambda: model.step([(session, [8])]),
                lambda: model.step_squares([(session, [9])]),
            ),
            1,
        ):
            run()
            assert counting.begun == number
        model.prepare()
        assert counting.begun == 4 + len(model._native.part_bytes())


def test_one_cycle_for_a_model_and_its_draft_model() -> None:
    counting = Counting()
    with Model(DEMO, threads=1, duty=counting) as model, Model(DEMO, threads=1, duty=counting) as small:
        ids = model.tokenizer.encode("Once upon a time")
        draft = llamacpu.ModelDraft(small)
        result = generate(model, ids, max_tokens=8, draft=draft, sampling=Sampling(temperature=0)).read()
        assert result.text
        assert counting.begun > 2


def test_a_limited_model_writes_the_same() -> None:
    clock = Clock()
    cycle = clock.cycle(20)
    with Model(DEMO, threads=1) as free, Model(DEMO, threads=1, duty=cycle) as limited:
        texts = [
            generate(m, m.tokenizer.encode("The cat"), max_tokens=6, sampling=Sampling(temperature=0)).read().text
            for m in (free, limited)
        ]
    assert texts[0] == texts[1]


def test_an_engine_takes_in_requests_during_a_pause() -> None:
    clock = Clock()
    cycle = clock.cycle(1)
    with Model(DEMO, threads=1, duty=cycle) as model, Engine(model) as engine:
        ids = model.tokenizer.encode("One day")
        assert engine.submit(ids, max_tokens=1).read()
        steps = engine.statistics.steps
        with cycle.working():
            clock.now += 60
        token = CancelToken()
        stopped = engine.submit(ids, max_tokens=2, sampling=Sampling(temperature=0), cancel=token)
        kept = engine.submit(ids, max_tokens=2, sampling=Sampling(temperature=0))
        # The clock stands still, so nothing is computed; a request can be cancelled all the same.
        token.cancel()
        assert stopped.read().result.ended_by == "cancelled"
        assert engine.statistics.steps == steps
        clock.now += 1e6
        engine._scheduler.wake()
        assert len(kept.read().result.tokens) == 2


def test_training_pauses_and_stops_in_a_pause(tmp_path: Path) -> None:
    counting = Counting()
    row = SimpleNamespace(tokens=[1, 2], segments=[0, 0], targets=[2, -1])
    trainer: Any = SimpleNamespace(
        step=lambda *_: (1.0, 1), loss=lambda *_: (1.0, 1), optimizer_step=lambda *_: 1.0, clear_gradients=lambda: None,
        parameters=lambda: np.zeros(1, np.float32), state=lambda: None,
    )  # fmt: skip
    rows: Any = [row, row]
    state: Any = SimpleNamespace(
        step=0, tokens=0, points=[], best_loss=None, best_step=0, best=None, evaluations_since_best=0, state=None
    )
    training = Training(
        trainer, rows, rows[:1], TrainingSettings(steps=3, batch=2, evaluate_every=3), state,
        path=tmp_path / "checkpoint", seconds=1e9, duty=counting,
    )  # fmt: skip
    training.save = lambda: None  # type: ignore[method-assign]
    training.run()
    # Three steps of two rows and the optimizer; evaluations before the first step and after the last one.
    assert counting.begun == 3 * 3 + 2
    clock = Clock()
    training._duty = cycle = clock.cycle(1)
    with cycle.working():
        clock.now += 60
    training._cancel = CancelToken()
    training._cancel.cancel()
    with pytest.raises(Cancelled):
        training._step()
    assert state.step == 3


def test_without_a_limit_nothing_is_entered() -> None:
    with working(None):
        pass


def test_one_limit_for_all_models_of_a_server() -> None:
    pytest.importorskip("starlette")
    from llamacpu.server import app

    application = app({"one": DEMO, "two": DEMO}, guard=DEMO, duty=50)
    cycle = application.settings.duty
    assert isinstance(cycle, DutyCycle)
    assert cycle.percent == 50
    assert application.guard is not None
    assert application.models.settings.duty is application.guard._settings.duty is cycle
    opened = application.models._open(DEMO)
    assert getattr(opened, "duty", None) is cycle
