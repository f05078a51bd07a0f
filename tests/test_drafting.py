"""Where drafts come from and how long they are: the n-gram index, the draft model, the rule and its measurements."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fake_model import START, FakeModel, ids_of, writer
from llamacpu.drafting import FunctionDraft, ModelDraft, NGramDraft
from llamacpu.drafting.cost import StepCost, cost_of
from llamacpu.drafting.length import AdaptiveLength
from llamacpu.drafting.ngram import NGramDrafter, NGramIndex
from llamacpu.errors import ModelError
from llamacpu.generation import generate
from llamacpu.model import Model, Session
from llamacpu.sampling import Sampling

GREEDY = Sampling(temperature=0)
TEXTS = st.lists(st.integers(0, 2), max_size=60)


def brute_force(text: list[int], size: int) -> tuple[int, int] | None:
    """The longest match by looking everywhere."""
    best = None
    for place in range(size, len(text)):
        length = 0
        while length < min(place, 32) and text[place - length - 1] == text[-length - 1]:
            length += 1
        if length >= size and (best is None or length >= best[1]):
            best = place, length
    return best


@given(TEXTS, st.integers(1, 4), st.lists(st.integers(0, 60), max_size=6))
def test_the_index_finds_the_longest_match(text: list[int], size: int, stops: list[int]) -> None:
    growing: list[int] = []
    index = NGramIndex(growing, size)
    for end in [*sorted(stops), len(text)]:
        growing.extend(text[len(growing) : end])
        found, expected = index.longest_match(), brute_force(growing, size)
        assert (found is None) == (expected is None)
        if found is not None and expected is not None:
            place, length = found
            assert growing[place - length : place] == growing[len(growing) - length :]
            # Only the newest places of an n-gram are looked at.
            gram = growing[-size:]
            places = [end for end in range(size, len(growing)) if growing[end - size : end] == gram]
            assert found == expected or len(places) > 16


@given(TEXTS, st.integers(1, 15), st.booleans())
def test_a_proposal_continues_an_earlier_place_of_the_texts_end(text: list[int], count: int, at_once: bool) -> None:
    growing: list[int] = []
    drafter = NGramDrafter(growing, 2)
    for token in text:
        growing.append(token)
        if not at_once:
            drafter.strength()
    length = drafter.strength()
    proposed = list(drafter.propose(count))
    if length is None:
        assert proposed == []
        assert brute_force(growing, 2) is None
        return
    assert len(proposed) == count
    whole = growing + proposed
    assert any(
        whole[place - length : place + count] == whole[len(growing) - length : len(growing) + count]
        for place in range(length, len(growing))
    )


def test_a_short_loop_is_proposed_as_long_as_wanted() -> None:
    drafter = NGramDrafter([9, 1, 2, 1, 2, 1, 2], 3)
    assert list(drafter.propose(7)) == [1, 2, 1, 2, 1, 2, 1]


def test_a_lookup_does_not_depend_on_the_length_of_the_text() -> None:
    class Counted(list[int]):
        reads = 0

        def __getitem__(self, key: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(key)

    counts = []
    for length in (1000, 100_000):
        text = Counted([place % 7 for place in range(length)])
        index = NGramIndex(text, 3)
        index.longest_match()
        Counted.reads = 0
        for token in (0, 1, 2):
            text.append(token)
            index.longest_match()
        counts.append(Counted.reads)
    assert counts[0] == counts[1]


@given(st.floats(1e-4, 10), st.floats(0.02, 0.9), st.lists(st.integers(1, 16), min_size=200, max_size=300))
def test_the_cost_of_a_pass_is_learned(seconds: float, slope: float, sizes: list[int]) -> None:
    cost = StepCost()
    assert not cost.known
    for tokens in (*sizes, *range(1, 17), *range(1, 17)):
        cost.note(tokens, seconds * (1 + slope * (tokens - 1)))
    assert cost.seconds == pytest.approx(seconds, rel=0.3)
    for tokens in (1, 2, 8, 16):
        assert cost.ratio(tokens) == pytest.approx(1 + slope * (tokens - 1), rel=0.35)


@given(st.lists(st.tuples(st.integers(1, 16), st.floats(0, 1e6)), max_size=50))
def test_whatever_is_measured_the_cost_stays_usable(measured: list[tuple[int, float]]) -> None:
    cost = StepCost()
    for tokens, seconds in measured:
        cost.note(tokens, seconds)
        assert cost.seconds >= 0
        assert cost.ratio(1) == 1
        assert all(1 <= cost.ratio(size) <= 1.5 * size for size in range(1, 17))


def test_sizes_that_are_cheaper_than_the_line_are_known() -> None:
    cost = StepCost()
    steps = {1: 1.0, 2: 1.05, 3: 1.4, 4: 1.2, 8: 1.6}
    for _ in range(100):
        for tokens, seconds in steps.items():
            cost.note(tokens, seconds)
    for tokens, seconds in steps.items():
        assert cost.ratio(tokens) == pytest.approx(seconds, rel=0.08)
    assert cost.ratio(4) < cost.ratio(3)


def test_models_keep_their_costs_apart() -> None:
    one, other = FakeModel(lambda tokens: START), FakeModel(lambda tokens: START)
    cost_of(one).note(1, 2.0)
    assert cost_of(one).seconds == 2.0
    assert not cost_of(other).known


def known_cost(slope: float = 0.2) -> StepCost:
    cost = StepCost()
    for _ in range(300):
        cost.note(1, 1.0)
        cost.note(8, 1.0 + 7 * slope)
    return cost


@given(st.integers(0, 40), st.integers(0, 20), st.booleans(), st.floats(0.02, 1))
def test_nothing_is_proposed_beyond_the_room_and_the_longest(
    strength: int, room: int, watched: bool, slope: float
) -> None:
    rule = AdaptiveLength(known_cost(slope), 7)
    assert 0 <= rule.choose(strength, room, watched) <= min(room, 7)


def test_without_a_measurement_nothing_is_proposed() -> None:
    assert AdaptiveLength(StepCost(), 15).choose(20, 15, watched=True) == 0


def test_proposals_grow_while_they_are_right() -> None:
    rule = AdaptiveLength(known_cost(), 15)
    chosen = []
    for _ in range(12):
        count = rule.choose(8, 15, watched=True)
        rule.passed()
        rule.seen(8, count, wrong=False)
        rule.paid(count, count, 0.0)
        chosen.append(count)
    assert chosen[0] > 0
    assert chosen == sorted(chosen)
    assert chosen[-1] >= 10


@given(st.lists(st.integers(0, 40), min_size=50, max_size=400), st.booleans(), st.floats(0.02, 1))
def test_a_text_that_confirms_nothing_loses_very_little(strengths: list[int], watched: bool, slope: float) -> None:
    cost = known_cost(slope)
    rule = AdaptiveLength(cost, 15)
    lost = 0.0
    for strength in strengths:
        count = rule.choose(strength, 15, watched)
        rule.passed()
        rule.seen(strength, 0, wrong=bool(count) or watched)
        if count:
            rule.paid(count, 0, 0.0)
            lost += cost.ratio(1 + count) - 1
    assert lost <= 0.5 + 0.02 * len(strengths) + 1e-9


def test_a_text_that_confirms_nothing_is_left_alone_once_that_is_known() -> None:
    rule = AdaptiveLength(known_cost(), 15)
    for _ in range(40):
        rule.passed()
        rule.seen(5, 0, wrong=True)
    assert rule.choose(5, 15, watched=True) == 0
    # Longer matches are another matter.
    assert rule.choose(20, 15, watched=True) > 0
    for _ in range(40):
        rule.seen(5, 1, wrong=False)
    assert rule.choose(5, 15, watched=True) > 0


def test_making_proposals_has_its_price() -> None:
    cheap, dear = AdaptiveLength(known_cost(0.05), 15), AdaptiveLength(known_cost(0.05), 15)
    for rule, seconds in ((cheap, 0.0), (dear, 0.8)):
        for _ in range(20):
            rule.passed()
            rule.seen(0, 3, wrong=False)
            rule.paid(3, 3, 3 * seconds)
    assert cheap.choose(0, 15, watched=False) > dear.choose(0, 15, watched=False)


@pytest.mark.parametrize("bad", [0, 16, -1])
def test_sizes_of_drafts_are_checked(bad: int) -> None:
    with pytest.raises(ValueError, match=f"max_tokens of a draft is {bad}; expected 1 to 15"):
        NGramDraft(max_tokens=bad)
    with pytest.raises(ValueError, match="min_match is 33; expected 1 to 32"):
        NGramDraft(min_match=33)


def test_what_is_no_draft_is_refused() -> None:
    model = writer("x", 3)
    with pytest.raises(ValueError, match="draft is 'often'; expected \"auto\""):
        generate(model, "ab", draft="often")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="draft is a int"):
        generate(model, "ab", draft=3)  # type: ignore[arg-type]


def test_a_function_sees_the_text_and_may_propose_arrays() -> None:
    seen = []

    def propose(ids: np.ndarray) -> np.ndarray:
        seen.append(ids.tolist())
        return np.array(ids_of("hello, world")[len(ids) - 3 :])

    session = writer("hello, world", 3).session()
    draft = FunctionDraft(propose, adaptive=False)
    result = generate(session, "ab", sampling=GREEDY, draft=draft).read()
    assert result.text == "hello, world"
    assert seen == [[START, *ids_of("abh")]]
    assert session.calls == [3, 12]
    assert (result.timings.steps, result.timings.drafted_tokens, result.timings.accepted_tokens) == (1, 11, 11)
    assert len(result.timings.token_seconds) == 12
    assert result.timings.as_dict()["accepted_tokens"] == 11
    assert result.timings.tokens_per_second == 12 / result.timings.generate_seconds


def test_a_draft_uses_the_context_to_its_last_place_and_no_token_beyond_the_limit() -> None:
    draft = FunctionDraft(lambda ids: ids_of("hello, world")[len(ids) - 3 :], adaptive=False)
    model = writer("hello, world", 3)
    model.context_length = 10
    session = model.session()
    result = generate(session, "ab", sampling=GREEDY, draft=draft).read()
    assert (result.text, result.ended_by) == ("hello, w", "context")
    assert session.calls == [3, 7]
    session = writer("hello, world", 3).session()
    assert generate(session, "ab", sampling=GREEDY, draft=draft, max_tokens=6).read().text == "hello,"
    # The last token is chosen from the logits before it.
    assert session.calls == [3, 5]


def test_a_draft_model_goes_on_after_a_shift() -> None:
    letters = "abcdefghijklmnop"

    def model() -> FakeModel:
        return FakeModel(lambda tokens: ids_of(letters[(letters.index(chr(tokens[-1] - 3)) + 1) % 16])[0], context=12)

    class Unchecked(ModelDraft):
        def check(self, session: Session) -> None:
            """Whatever the vocabulary."""

    draft = Unchecked(model(), 3, adaptive=False)
    result = generate(model(), "a", sampling=GREEDY, overflow="shift", draft=draft, max_tokens=60).read()
    assert result.text == ("bcdefghijklmnopa" * 4)[:60]
    assert result.shifts > 3
    assert result.timings.accepted_tokens == result.timings.drafted_tokens > 30


def test_a_function_that_proposes_what_is_no_token_is_an_error() -> None:
    draft = FunctionDraft(lambda ids: [5, 10**6], adaptive=False)
    session = writer("hello", 3).session()
    generation = generate(session, "ab", sampling=GREEDY, draft=draft)
    assert next(generation) == "h"
    with pytest.raises(ValueError, match="the draft proposed token 1000000; expected ids from 0 to 258"):
        next(generation)
    assert session.tokens == [START, *ids_of("ab")]


def test_a_session_that_went_on_elsewhere_is_left_alone() -> None:
    session = writer("hello", 3).session()
    draft = FunctionDraft(lambda ids: ids_of("elloxyz"), adaptive=False)
    generation = generate(session, "ab", sampling=GREEDY, draft=draft)
    assert [next(generation), next(generation)] == ["h", "e"]
    assert session.position > 5
    session.truncate(1)
    session.forward(ids_of("another text, much longer"), logits="none")
    held = session.tokens
    generation.close()
    assert session.tokens == held


def test_one_draft_model_serves_a_conversation_and_others_beside_it(tiny_model: Callable[..., Path]) -> None:
    with Model(tiny_model("gqa"), threads=1) as model, Model(tiny_model("gqa"), threads=1) as small:
        draft = ModelDraft(small, adaptive=False)
        asked = {"sampling": GREEDY, "max_tokens": 12, "ignore_end": True}
        expected = {text: generate(model, text, draft=None, **asked).read().text for text in ("One", "Two")}  # type: ignore[arg-type]
        first = generate(model, "One", draft=draft, **asked)  # type: ignore[arg-type]
        begun = next(first)
        assert generate(model, "Two", draft=draft, **asked).read().text == expected["Two"]  # type: ignore[arg-type]
        assert begun + first.read().text[len(begun) :] == expected["One"]


def test_a_draft_model_needs_the_same_vocabulary(tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed.gguf"
    with Model(tiny_model("gqa")) as model, Model(tiny_model("bpe")) as other:
        with pytest.raises(ModelError, match=r"the draft model has \d+ tokens and the model \d+; expected .* family"):
            generate(model, "Hello", draft=other)
        tokens = model.metadata.strings("tokenizer.ggml.tokens")
        place = int(tokens.offsets[300]) + 8
        data = bytearray(tiny_model("gqa").read_bytes())
        data[place] = ord("?")
        changed.write_bytes(data)
        with (
            Model(changed) as different,
            pytest.raises(ModelError, match=r"token 300 is '\?.*' to the draft model and '.*' to the model"),
        ):
            generate(model, "Hello", draft=different)
