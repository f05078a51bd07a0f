"""What goes into a step: the pace of prompts, turns between clients, and histograms of what came of it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamacpu.scheduler.jobs import Job, Slot
from llamacpu.scheduler.pace import LARGEST_CHUNK, LEAST_CHUNK, Pace
from llamacpu.scheduler.plan import plan
from llamacpu.scheduler.shares import Shares
from llamacpu.scheduler.statistics import Histogram, Statistics


def machine(fixed: float, token: float, decode: float) -> Callable[[int, int], float]:
    """Seconds of a step: of decoded tokens, and of prompts, whose first token costs more."""
    return lambda decoding, prompt: (decode if decoding else 0) + (fixed + token * prompt if prompt else 0)


@pytest.mark.parametrize("token", [0.0005, 0.004, 0.03])
@pytest.mark.parametrize("fixed", [0.0, 0.06])
def test_the_pace_finds_the_chunk_that_takes_the_time_allowed(token: float, fixed: float) -> None:
    seconds = machine(fixed, token, 0.03)
    pace = Pace(0.25)
    for _ in range(50):
        pace.note(1, 0, seconds(1, 0))
        room = pace.room(1)
        pace.note(1, room, seconds(1, room))
    took = seconds(1, pace.room(1))
    assert pace.room(1) in (LEAST_CHUNK, LARGEST_CHUNK) or 0.18 <= took <= 0.26
    for _ in range(50):
        pace.note(0, pace.room(0), seconds(0, pace.room(0)))
    assert pace.room(0) in (LEAST_CHUNK, LARGEST_CHUNK) or 0.4 <= seconds(0, pace.room(0)) <= 0.52


def test_prompts_get_half_of_the_time_where_decoding_is_slow() -> None:
    seconds = machine(0.1, 0.01, 1.0)
    pace = Pace(0.25)
    for _ in range(50):
        pace.note(8, 0, seconds(8, 0))
        pace.note(8, pace.room(8), seconds(8, pace.room(8)))
    assert 1.8 <= seconds(8, pace.room(8)) <= 2.1


def test_a_small_rest_of_a_prompt_does_not_make_chunks_small() -> None:
    pace = Pace(0.25)
    for _ in range(50):
        pace.note(1, pace.room(1), 0.25)
    room = pace.room(1)
    for _ in range(50):
        pace.note(1, room // 8, 0.2)
    assert pace.room(1) == room


def job(tokens: int, client: str = "", logits: Any = "last") -> Job:
    native: Any = SimpleNamespace(position=0)
    pages: Any = None
    return Job(Slot(native, pages, client), list(range(tokens)), logits, None)


@given(st.lists(st.tuples(st.integers(1, 2000), st.sampled_from("abc")), min_size=1, max_size=100), st.integers(1, 70))
def test_a_plan_takes_every_decoded_token_and_something_of_the_prompts(asked: list[tuple[int, str]], most: int) -> None:
    jobs = [job(tokens, client) for tokens, client in asked]
    parts = plan(jobs, Shares(), Pace(0.25), most)
    assert parts
    assert len({part.job for part in parts}) == len(parts) <= most + 1
    decoded = [one for one in jobs if one.left <= LEAST_CHUNK]
    assert [part.job for part in parts if part.job.left <= LEAST_CHUNK] == decoded[:most]
    for part in parts:
        assert list(part.ids) == list(part.job.ids[: len(part.ids)])
    prompts = sum(len(part.ids) for part in parts if part.job.left > LEAST_CHUNK)
    assert prompts <= LARGEST_CHUNK + LARGEST_CHUNK // 4
    assert prompts > 0 or len(decoded) == len(jobs)


def test_the_prompt_of_the_client_that_was_given_least_comes_first() -> None:
    shares = Shares()
    for client in "ab":
        shares.enter(client)
    shares.charge("a", 100)
    jobs = [job(5000, "a"), job(5000, "b"), job(5000, "b")]
    assert plan(jobs, shares, Pace(0.25), 16)[0].job is jobs[1]
    shares.charge("b", 101)
    assert plan(jobs, shares, Pace(0.25), 16)[0].job is jobs[0]


def test_all_rows_of_one_token_need_no_step_of_their_own() -> None:
    one = job(1, logits="all")
    assert one.logits == "last"
    assert one.advance(1, np.arange(5))
    assert one.result.shape == (1, 5)


def test_rows_of_all_tokens_are_bounded() -> None:
    (part,) = plan([job(5000, logits="all")], Shares(), Pace(0.25), 16)
    assert len(part.ids) <= 64


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3), st.integers(1, 500)), max_size=60))
def test_nobody_saves_up_a_right_and_nobody_is_forgotten(steps: list[tuple[str, int, int]]) -> None:
    shares = Shares()
    active: dict[str, int] = {}
    for client, kind, tokens in steps:
        if kind == 0:
            others = [shares.served(other) for other in active]
            was = client in active
            shares.enter(client)
            active[client] = active.get(client, 0) + 1
            if not was and others:
                assert shares.served(client) >= min(others)
        elif kind == 1 and client in active:
            shares.leave(client)
            active[client] -= 1
            if not active[client]:
                del active[client]
        elif client in active:
            before = shares.served(client)
            shares.charge(client, tokens, 2.0)
            assert shares.served(client) == before + 2 * tokens


@given(st.lists(st.floats(0, 300, allow_nan=False), max_size=50))
def test_histograms_count_everything_once(values: list[float]) -> None:
    histogram = Histogram((1, 10, 100))
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.sum == pytest.approx(sum(values))
    for bound, seen in zip((1, 10, 100), (1, 2, 3), strict=True):
        assert sum(histogram.counts[:seen]) == sum(value <= bound for value in values)
    median = histogram.quantile(0.5)
    assert (median is None) == (not values)
    if median is not None:
        assert sum(value <= median for value in values) >= len(values) / 2


def test_statistics_are_plain_values() -> None:
    import json

    statistics = Statistics()
    statistics.add(steps=2)
    statistics.step_seconds.observe(0.5)
    found = json.loads(json.dumps(statistics.as_dict()))
    assert found["steps"] == 2
    assert found["step_seconds"]["count"] == 1
    assert "lock" not in found
