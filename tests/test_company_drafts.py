"""Drafts of texts that share steps with others: priced by what the scheduler has measured, no text changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
from llamacpu import Engine, Model, Sampling
from llamacpu.drafting import FunctionDraft, NGramDraft
from llamacpu.drafting.cost import StepCost
from llamacpu.drafting.length import AdaptiveLength
from llamacpu.generation import generate
from llamacpu.scheduler.accounts import note
from llamacpu.scheduler.desk import Desk
from llamacpu.scheduler.pace import Pace
from llamacpu.scheduler.quiet_drafts import QuietDraft
from llamacpu.scheduler.statistics import Statistics

DEMO = Path(llamacpu.__file__).parent / "data" / "demo.gguf"
REPEATING = "The cat sat. The dog ran. The cat sat. The dog ran. The cat sat. The dog"


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with Model(DEMO) as opened:
        yield opened


def measured(slope: float) -> StepCost:
    cost = StepCost()
    for _ in range(300):
        for tokens in (1, 4, 8):
            cost.note(tokens, 1.0 + (tokens - 1) * slope)
    return cost


def part(tokens: int) -> Any:
    ids = list(range(tokens))
    return SimpleNamespace(ids=ids, job=SimpleNamespace(ids=ids))


@given(st.integers(0, 40), st.integers(0, 15), st.integers(1, 12), st.floats(0.01, 1))
def test_a_proposal_makes_a_shared_step_hardly_longer(strength: int, room: int, others: int, slope: float) -> None:
    cost = measured(slope)
    count = AdaptiveLength(cost, 15).choose(strength, room, True, others)
    assert count <= room
    assert cost.ratio(others + 1 + count) <= 1.1 * cost.ratio(others + 1)


def test_steps_that_hardly_grow_have_room_for_proposals_in_company() -> None:
    flat, steep = AdaptiveLength(measured(0.01), 15), AdaptiveLength(measured(0.5), 15)
    assert flat.choose(20, 15, True, others=3) > 0
    assert steep.choose(20, 15, True, others=3) == 0


def test_what_others_lose_is_charged_to_the_account() -> None:
    rule = AdaptiveLength(measured(0.02), 15)
    proposed = 0
    for _ in range(200):
        count = rule.choose(20, 15, False, others=3)
        rule.passed()
        rule.seen(20, 0, wrong=count > 0)
        if count:
            rule.paid(count, 0, 0.0)
        proposed += count
    # Half a step at the start and a fiftieth of each pay for two hundredths of a step at a time.
    assert proposed * 0.02 / 1.06 <= 0.5 + 0.02 * 200


def test_steps_without_prompts_are_priced_by_all_their_tokens() -> None:
    cost, pace = StepCost(), Pace(0.25)
    assert note([part(100), part(1)], 9.0, pace, cost, Statistics()) is None
    assert not cost.known
    assert note([part(1)], 2.0, pace, cost, Statistics()) == 1
    assert cost.seconds == 2.0
    for _ in range(100):
        assert note([part(1), part(3), part(4)], 3.0, pace, cost, Statistics()) == 8
    assert cost.ratio(8) == pytest.approx(1.5, rel=0.05)


@pytest.mark.parametrize(
    ("running", "decoded", "expected"), [(0, 1, 0), (1, None, 0), (3, None, None), (3, 3, 2), (3, 9, 5), (3, 2, 2)]
)
def test_the_company_of_a_request(running: int, decoded: int | None, expected: int | None) -> None:
    desk: Any = SimpleNamespace(_running=range(running), scheduler=SimpleNamespace(decoded=decoded))
    assert Desk.company(desk, 4) == expected


@pytest.mark.parametrize(
    ("draft", "in_company"),
    [
        (NGramDraft(), True),
        (NGramDraft(adaptive=False), False),
        (FunctionDraft(lambda text: [1]), False),
    ],
    ids=["n-grams", "of one length", "a function"],
)
def test_who_proposes_in_company(model: Model, draft: Any, in_company: bool) -> None:
    company: list[int | None] = [2]
    drafter = QuietDraft(draft, lambda own: company[0], measured(0.01)).begin(model.session(), [1, 2, 1, 2, 1], None)
    assert (drafter.strength() is not None) is in_company
    for none in (None, 16):
        company[0] = none
        assert drafter.strength() is None
    company[0] = 0
    assert drafter.strength() is not None
    assert drafter.others == 0


def test_texts_that_are_drafted_together_are_those_written_alone(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    choices: list[tuple[int, int]] = []
    choose = AdaptiveLength.choose

    def recorded(self: AdaptiveLength, strength: int, room: int, watched: bool, others: int = 0) -> int:
        choices.append((others, choose(self, strength, room, watched, others)))
        return choices[-1][1]

    monkeypatch.setattr(AdaptiveLength, "choose", recorded)
    prompt = model.tokenizer.encode(REPEATING)
    settings: Any = {"sampling": Sampling(temperature=0), "max_tokens": 120, "ignore_end": True}
    expected = generate(model, prompt, draft=None, **settings).read().text
    with Engine(model) as engine:
        cost = measured(0.01)
        # Prices as of a processor whose memory bounds a step.
        monkeypatch.setattr(cost, "note", lambda tokens, seconds: None)
        engine._scheduler.cost = cost
        requests = [engine.submit(prompt, **settings) for _ in range(4)]
        assert {request.read().content for request in requests} == {expected}
    assert any(others and count for others, count in choices)
