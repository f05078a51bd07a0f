"""Requests that run at the same time share what they begin with, whatever their sessions can be rewound to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from further_families import VOCABULARY, write
from llamacpu import Engine, Model, Sampling
from llamacpu.generation import generate
from llamacpu.scheduler.pace import Pace
from llamacpu.scheduler.plan import plan
from llamacpu.scheduler.prefixes import Prefixes
from llamacpu.scheduler.shares import Shares
from test_scheduler_plan import job

pytestmark = pytest.mark.instruction_set(one_in=None)

GREEDY = Sampling(temperature=0)
SYSTEM = [7 * number % VOCABULARY for number in range(60)]
TOKENS = 12


@pytest.fixture(scope="module", params=["qwen35", "qwen3next", "exaone4", "internlm2"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    """With recurrent layers, with windows, and with neither."""
    with Model(write(tmp_path_factory.mktemp("shared") / "model.gguf", request.param), threads=2) as opened:
        yield opened


def alone(model: Model, prompt: list[int]) -> tuple[int, ...]:
    settings: dict[str, Any] = {"sampling": GREEDY, "draft": None, "ignore_end": True, "max_tokens": TOKENS}
    return generate(model, prompt, **settings).read().tokens


def ask(engine: Engine, prompt: list[int]) -> Any:
    return engine.submit(prompt, sampling=GREEDY, draft=None, ignore_end=True, max_tokens=TOKENS)


class Hold:
    """A call that holds the scheduler between two steps, from `reached` until it is released."""

    def __init__(self, engine: Engine) -> None:
        self.reached, self._released = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=engine._scheduler.call, args=(self._run,))
        self._thread.start()

    def _run(self) -> None:
        self.reached.set()
        self._released.wait()

    def release(self) -> None:
        self._released.set()
        self._thread.join()


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """No step runs, as soon as that which runs or is next has ended."""
    hold = Hold(engine)
    try:
        assert hold.reached.wait(60)
        yield
    finally:
        hold.release()


def until(engine: Engine, condition: Callable[[], bool]) -> None:
    """Wait for something that requests do in their own threads."""
    changed, end = engine._scheduler.changed, time.monotonic() + 60
    with changed:
        while not condition():
            assert time.monotonic() < end
            changed.wait(0.002)


def waiting(engine: Engine) -> int:
    return len(list(engine._prefixes.waiting()))


def test_requests_that_come_together_share_what_one_of_them_computes(model: Model) -> None:
    prompts = [[*SYSTEM, number, 3] for number in range(5)]
    prompts += [[*SYSTEM[:40], 9 + number, 4] for number in range(2)]
    assert len({tuple(prompt) for prompt in prompts}) == 7
    with Engine(model, max_running=7) as engine:
        with held(engine):
            requests = [ask(engine, prompts[0])]
            until(engine, lambda: len(engine._scheduler._jobs) == 1)
            requests += [ask(engine, prompt) for prompt in prompts[1:]]
            until(engine, lambda: waiting(engine) == 6)
        answers = [request.read(60) for request in requests]
        assert [answer.result.tokens for answer in answers] == [alone(model, prompt) for prompt in prompts]
        assert [answer.result.cached_tokens for answer in answers] == [0, 60, 60, 60, 60, 40, 40]
        # The common part once, and of each request its own tokens.
        assert engine.statistics.step_tokens <= 60 + 7 * (2 + TOKENS)


@pytest.mark.parametrize("none", [False, True])
def test_a_request_goes_on_from_what_a_running_one_still_has(
    model: Model, none: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With recurrent layers, a session has a state 32 tokens before the end of its prompt; others may have nothing."""
    first, second = [*SYSTEM, 1, 2, 4], [*SYSTEM, 0, 3]
    points: list[int] = []
    find = Prefixes._resume_point

    def noted(prefixes: Prefixes, session: Any, shared: int) -> int:
        points.append(0 if none else find(prefixes, session, shared))
        return points[-1]

    monkeypatch.setattr(Prefixes, "_resume_point", noted)
    with Engine(model) as engine:
        with held(engine):
            request = ask(engine, first)
            until(engine, lambda: len(engine._scheduler._jobs) == 1)
            hold = Hold(engine)
            until(engine, lambda: len(engine._scheduler._calls) == 1)
        # One step has computed some of the prompt; the call holds the next one.
        assert hold.reached.wait(60)
        other = ask(engine, second)
        until(engine, lambda: waiting(engine) == 1 and len(engine._scheduler._jobs) == 1)
        hold.release()
        assert request.read(60).result.tokens == alone(model, first)
        answer = other.read(60).result
        assert answer.tokens == alone(model, second)
        assert points[0] == 0 if none else points[0] in ((31, 60) if any(model.config.recurrent_heads) else (60,))
        # Too little is not taken from it; what it leaves in the cache may be.
        assert answer.cached_tokens == points[0] if points[0] >= 32 else answer.cached_tokens in (0, points[-1])


@given(st.integers(0, 90), st.lists(st.integers(1, 2000), max_size=4), st.integers(1, 2000))
def test_steps_end_where_others_want_to_go_on(position: int, stops: list[int], tokens: int) -> None:
    one = job(tokens)
    one.slot.native.position = position
    (before,) = plan([one], Shares(), Pace(0.25), 16)
    one.slot.stops.extend(stops)
    (part,) = plan([one], Shares(), Pace(0.25), 16)
    ahead = [stop - position for stop in stops if stop > position]
    assert len(part.ids) == min([len(before.ids), *ahead])
