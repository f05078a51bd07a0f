"""Every step of the sampler chain against its definition."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import reference_sampling as reference
from llamacpu.sampling import Sampler, Sampling, repetition, truncation
from llamacpu.sampling.candidates import Candidates, from_logits, probabilities
from llamacpu.sampling.draw import Mirostat, NearTarget, position_at
from llamacpu.sampling.mersenne import Mersenne
from llamacpu.sampling.temperature import dynamic_temperature

# Quarters are exact in float32, and many of them are equal, so ties are tried all the time.
quarters = st.integers(-60, 60).map(lambda number: number / 4)
rows = st.lists(quarters, min_size=1, max_size=40)
fractions = st.floats(0.001, 0.999)
few = st.integers(0, 6)


def pairs_of(candidates: Candidates) -> reference.Pairs:
    return [(candidates.token(place), float(candidates.logits[place])) for place in range(len(candidates))]


def close(candidates: Candidates, pairs: reference.Pairs) -> None:
    assert [token for token, _ in pairs_of(candidates)] == [token for token, _ in pairs]
    np.testing.assert_allclose(candidates.logits, [logit for _, logit in pairs], rtol=1e-5, atol=1e-5)


def both(row: list[float]) -> tuple[Candidates, reference.Pairs]:
    return from_logits(row), list(enumerate(row))


@given(rows)
def test_probabilities_are_the_softmax(row: list[float]) -> None:
    candidates, pairs = both(row)
    np.testing.assert_allclose(probabilities(candidates), reference.softmax(pairs), rtol=1e-12)


@given(rows, st.integers(-1, 50))
def test_top_k(row: list[float], count: int) -> None:
    candidates, pairs = both(row)
    close(truncation.top_k(candidates, count), reference.top_k(pairs, count))


@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_top_k_of_a_large_vocabulary(seed: int, count: int) -> None:
    row = np.random.default_rng(seed).integers(-500, 500, 3000).astype(np.float32)
    close(truncation.top_k(from_logits(row), count), reference.top_k(list(enumerate(row.tolist())), count))


@given(rows, fractions, few)
def test_top_p(row: list[float], mass: float, min_keep: int) -> None:
    candidates, pairs = both(row)
    reached = np.cumsum(reference.softmax(reference.descending(pairs)))
    assume(abs(reached - mass).min() > 1e-9)
    close(truncation.top_p(candidates, mass, min_keep), reference.top_p(pairs, mass, min_keep))


@given(st.integers(0, 2**32 - 1), fractions, st.floats(0.001, 3))
@settings(max_examples=40)
def test_top_p_of_a_large_vocabulary(seed: int, mass: float, width: float) -> None:
    row = (np.random.default_rng(seed).standard_normal(6000) * width).astype(np.float32)
    pairs = list(enumerate(row.tolist()))
    reached = np.cumsum(reference.softmax(reference.descending(pairs)))
    assume(abs(reached - mass).min() > 3e-6)
    close(truncation.top_p(from_logits(row), mass, 0), reference.top_p(pairs, mass, 0))


@given(rows, fractions, few)
def test_min_p(row: list[float], fraction: float, min_keep: int) -> None:
    candidates, pairs = both(row)
    assume(min(abs(logit - max(row) - math.log(fraction)) for logit in row) > 1e-6)
    close(truncation.min_p(candidates, fraction, min_keep), reference.min_p(pairs, fraction, min_keep))


@given(rows, fractions, few)
def test_typical(row: list[float], mass: float, min_keep: int) -> None:
    candidates, pairs = both(row)
    chances = reference.softmax(pairs)
    distances = [abs(-math.log(chance) - reference.entropy(chances)) for chance in chances]
    gaps = np.diff(sorted(set(distances)))
    assume(not len(gaps) or gaps.min() > 1e-9)
    reached = np.cumsum([chances[index] for index in np.argsort(distances, kind="stable")])
    assume(abs(reached - mass).min() > 1e-9)
    close(truncation.typical(candidates, mass, min_keep), reference.typical(pairs, mass, min_keep))


@given(rows, st.floats(-1, 4))
def test_top_n_sigma(row: list[float], sigmas: float) -> None:
    candidates, pairs = both(row)
    floor = max(row) - sigmas * float(np.std(row))
    assume(min(abs(logit - floor) for logit in row) > 1e-6)
    close(truncation.top_n_sigma(candidates, sigmas), reference.top_n_sigma(pairs, sigmas))


@given(rows, st.floats(0.001, 0.5), few)
def test_xtc(row: list[float], threshold: float, min_keep: int) -> None:
    candidates, pairs = both(row)
    assume(len(row) > 1 and min(abs(chance - threshold) for chance in reference.softmax(pairs)) > 1e-9)
    close(truncation.xtc(candidates, threshold, min_keep), reference.xtc(pairs, threshold, min_keep))


@given(rows, st.floats(0, 3), st.floats(0, 2), st.floats(0.1, 3))
def test_temperature(row: list[float], value: float, spread: float, exponent: float) -> None:
    candidates, pairs = both(row)
    # Of a distribution that is nearly certain the entropy has few correct digits, in whatever way it is computed.
    assume(len(row) == 1 or max(reference.softmax(pairs)) < 1 - 1e-6)
    expected = reference.temperature(pairs, value, spread, exponent)
    # Below this the quotients leave the float32 range, where the step takes the limit of 0.
    assume(all(abs(logit) < 1e30 for _, logit in expected))
    close(dynamic_temperature(candidates, value, spread, exponent), expected)


def test_a_tiny_temperature_is_the_limit_zero() -> None:
    candidates = dynamic_temperature(from_logits([1.0, 3.0, 2.0]), 1e-300, 0, 1)
    assert pairs_of(candidates)[0][0] == 1
    assert len(candidates) == 1


tokens = st.lists(st.integers(0, 12), max_size=30)
reals = st.floats(-3, 3)


@given(rows, tokens, st.floats(0.1, 3), reals, reals)
def test_penalties(row: list[float], seen: list[int], repeat: float, frequency: float, presence: float) -> None:
    candidates, pairs = both(row)
    result = repetition.penalties(candidates, np.array(seen, dtype=np.int64), repeat, frequency, presence)
    close(result, reference.penalties(pairs, seen, repeat, frequency, presence))


@given(rows, tokens, st.floats(0.1, 3), reals)
def test_penalties_after_a_step_that_reorders(row: list[float], seen: list[int], repeat: float, other: float) -> None:
    candidates, pairs = both(row)
    result = repetition.penalties(truncation.top_k(candidates, 9), np.array(seen, dtype=np.int64), repeat, other, other)
    close(result, reference.penalties(reference.top_k(pairs, 9), seen, repeat, other, other))


def test_penalties_keep_a_forbidden_token_forbidden() -> None:
    candidates = repetition.penalties(from_logits([1.0, -math.inf]), np.array([0, 1]), 1.5, -1e300, 2.0)
    assert candidates.logits[1] == -np.inf
    assert np.isfinite(candidates.logits[0])


PIECES = ["a", "b", "c\n", ": ", "de", "ef", "f", "d", "x*y", "", '"', "e", "z"]


@given(tokens, st.lists(st.sampled_from(["\n", ":", "def", "ab", "*", "ea", "zz", "bbb"]), min_size=1, max_size=4))
def test_breakers_limit_a_run(seen: list[int], breakers: list[str]) -> None:
    found = repetition.Breakers(breakers, PIECES.__getitem__).tokens_after_last(np.array(seen, dtype=np.int64))
    assert found == reference.tokens_after_last_breaker([PIECES[token] for token in seen], breakers)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(0, 4), st.floats(0.1, 4), st.floats(1, 3), st.booleans())
def test_dry(seen: list[int], allowed: int, multiplier: float, base: float, broken: bool) -> None:
    candidates, pairs = both([0.5, 0.25, 0.0, -0.25, -0.5, -1.0])
    breakers = repetition.Breakers(["\n"] if broken else [], PIECES.__getitem__)
    limit = reference.tokens_after_last_breaker([PIECES[token] for token in seen], ["\n"]) if broken else len(seen)
    expected = reference.dry(pairs, seen, multiplier, base, allowed, limit, {2} if broken else set())
    result = repetition.dry(candidates, np.array(seen, dtype=np.int64), multiplier, base, allowed, breakers)
    np.testing.assert_allclose(result.logits, [logit for _, logit in expected], rtol=1e-5)


def test_dry_by_hand() -> None:
    seen = np.array([7, 1, 2, 3, 4, 1, 2, 3])
    result = repetition.dry(from_logits(np.zeros(9)), seen, 2.0, 3.0, 2, repetition.Breakers([], None))
    # "1 2 3" stood before 4: three tokens, one more than allowed.
    assert result.logits.tolist() == [0, 0, 0, 0, -6, 0, 0, 0, 0]


def test_dry_on_one_token_repeated_stays_finite() -> None:
    seen = np.ones(5000, dtype=np.int64)
    result = repetition.dry(from_logits(np.zeros(3)), seen, 1e30, 1.75, 2, repetition.Breakers([], None))
    assert np.isfinite(result.logits).all()
    assert result.logits[1] < -1e30


def test_random_words_are_the_published_mt19937() -> None:
    stream = Mersenne(5489)
    words = [stream.word() for _ in range(10000)]
    # The C++ standard fixes the first and the 10000th output of the default-seeded generator.
    assert words[0] == 3499211612
    assert words[-1] == 4123659995


def test_random_numbers_are_made_low_word_first() -> None:
    words, numbers, singles = Mersenne(7), Mersenne(7), Mersenne(7)
    low, high = words.word(), words.word()
    assert numbers.double() == (low + high * 2**32) / 2**64
    assert singles.single() == pytest.approx(low / 2**32, abs=2**-24)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=20), st.floats(0, 1, exclude_max=True))
def test_a_draw_never_takes_what_has_no_weight(weights: list[float], point: float) -> None:
    assume(sum(weights) > 1e-3)
    assert weights[position_at(np.array(weights), point)] > 0


def test_a_draw_follows_the_probabilities() -> None:
    row = np.log([0.5, 0.3, 0.15, 0.05])
    sampler = Sampler(Sampling(temperature=1, top_k=0, top_p=1, min_p=0, seed=3))
    counts = np.bincount([sampler.sample(row) for _ in range(20000)], minlength=4) / 20000
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.15, 0.05], atol=0.01)


@given(rows, st.floats(0.5, 12), st.integers(0, 99))
def test_mirostat_2_takes_only_expected_surprises(row: list[float], tau: float, seed: int) -> None:
    candidates, pairs = both(row)
    draw = Mirostat(2, tau, 0.1, len(row), Mersenne(seed))
    token = draw(candidates)
    chances = reference.softmax(pairs)
    assume(min(abs(-math.log2(chance) - 2 * tau) for chance in chances) > 1e-9)
    kept = [index for index, chance in enumerate(chances) if -math.log2(chance) <= 2 * tau]
    kept = kept or [reference.descending(pairs)[0][0]]
    assert token in kept
    surprise = -math.log2(chances[token] / math.fsum(chances[index] for index in kept))
    assert draw.mu == pytest.approx(2 * tau - 0.1 * (surprise - tau))


@pytest.mark.parametrize("version", [1, 2])
def test_mirostat_holds_the_surprise(version: int) -> None:
    generator = np.random.default_rng(1)
    draw = Mirostat(version, 3.0, 0.1, 1000, Mersenne(1))
    surprises = []
    for _ in range(1500):
        candidates = from_logits(np.sort(-1.1 * np.log(np.arange(1, 1001))) + 0.3 * generator.standard_normal(1000))
        token = draw(candidates)
        surprises.append(-math.log2(probabilities(candidates)[token]))
    assert 2.0 < np.mean(surprises[200:]) < 4.5


@given(rows, st.floats(0, 12), st.integers(0, 99))
def test_mirostat_1_survives_every_shape(row: list[float], tau: float, seed: int) -> None:
    draw = Mirostat(1, tau, 0.1, 32000, Mersenne(seed))
    for _ in range(3):
        assert 0 <= draw(from_logits(row)) < len(row)
        assert math.isfinite(draw.mu)


def test_adaptive_p_prefers_the_target_and_holds_the_average() -> None:
    row = np.log([0.7, 0.2, 0.1])
    draw = NearTarget(0.2, 0.9, Mersenne(4))
    taken = [draw(from_logits(row)) for _ in range(4000)]
    assert np.mean([[0.7, 0.2, 0.1][token] for token in taken]) == pytest.approx(0.2, abs=0.06)
    assert np.bincount(taken).argmax() == 1


def test_adaptive_p_by_hand() -> None:
    # From the definition: target 0.5 at the start, distances 0.5/0.3, 0.25/0.3 -> logits 5 - 10 d d / (1 + d).
    chances = [0.75, 0.25]
    first = 5 - 10 * (0.25 / 0.3) ** 2 / (1 + 0.25 / 0.3)
    assert first == pytest.approx(1.2121, abs=1e-4)
    counts = np.zeros(2)
    for seed in range(600):
        counts[NearTarget(0.5, 0.9, Mersenne(seed))(from_logits(np.log(chances)))] += 1
    assert counts[0] / 600 == pytest.approx(0.5, abs=0.07)
