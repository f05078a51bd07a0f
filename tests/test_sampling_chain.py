"""The chain of sampler steps against cases worked out by hand: order, seeds, wrong settings, unusable logits."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llamacpu
import reference_sampling as reference
from llamacpu import Llama
from llamacpu.errors import ModelError
from llamacpu.sampling import Sampler, Sampling, log_probability
from llamacpu.server.prompts import sampler_of

_DEMO = str(Path(llamacpu.__file__).parent / "data" / "demo.gguf")

# Quarters are exact in float32, and many of them are equal, so ties are tried all the time.
quarters = st.integers(-60, 60).map(lambda number: number / 4)
rows = st.lists(quarters, min_size=1, max_size=40)


def test_greedy_takes_the_lowest_id_among_equals() -> None:
    assert Sampler(Sampling(temperature=0)).sample([1.0, 5.0, 5.0, 2.0]) == 1


@given(rows)
def test_greedy_is_the_argmax_whatever_is_truncated(row: list[float]) -> None:
    settings = Sampling(temperature=0, top_k=3, top_p=0.5, min_p=0.2, top_n_sigma=1)
    assert Sampler(settings).sample(row) == int(np.argmax(np.array(row, dtype=np.float32)))


def test_greedy_still_penalizes() -> None:
    settings = Sampling(temperature=0, repeat_penalty=2)
    assert Sampler(settings).sample([3.0, 2.0, 0.0], [0]) == 1
    assert Sampler(settings).sample([3.0, 2.0, 0.0], []) == 0


def test_the_default_chain_by_hand() -> None:
    # exp: 8, 4, 2, 1, 0.1, ...: top-p 0.95 of 15.1 keeps four (15 >= 14.345 is reached by the fourth: 8+4+2 = 14);
    # min-p 0.05 keeps those of at least 0.4; temperature 0.5 squares the odds: 64 : 16 : 4 : 1.
    row = np.log([0.1, 8, 1, 4, 2])
    sampler = Sampler(Sampling(temperature=0.5, seed=11))
    counts = np.bincount([sampler.sample(row) for _ in range(8000)], minlength=5) / 8000
    np.testing.assert_allclose(counts, [0, 64 / 85, 1 / 85, 16 / 85, 4 / 85], atol=0.015)


def test_the_order_of_the_steps_decides() -> None:
    # Temperature first flattens the distribution, so that top-p keeps more.
    row = np.log([8.0, 4, 2, 1])
    first = Sampling(temperature=4, top_k=0, min_p=0, top_p=0.75, samplers="temperature;top_p", seed=5)
    last = Sampling(temperature=4, top_k=0, min_p=0, top_p=0.75, samplers="pt", seed=5)
    wide, narrow = Sampler(first), Sampler(last)
    assert {wide.sample(row) for _ in range(200)} == {0, 1, 2}
    assert {narrow.sample(row) for _ in range(200)} == {0, 1}


def test_samplers_that_are_not_listed_do_nothing() -> None:
    sampler = Sampler(Sampling(top_k=1, samplers=("temperature",), seed=1))
    assert {sampler.sample([0.0, 0.0, 0.0]) for _ in range(60)} == {0, 1, 2}


def test_xtc_in_the_chain_acts_by_chance() -> None:
    row = np.log([0.5, 0.4, 0.1])
    never = Sampler(Sampling(temperature=1, top_p=1, min_p=0, xtc_probability=0.0, seed=1))
    always = Sampler(Sampling(temperature=1, top_p=1, min_p=0, xtc_probability=1.0, seed=1))
    assert {never.sample(row) for _ in range(300)} == {0, 1, 2}
    assert {always.sample(row) for _ in range(300)} == {1, 2}


@given(st.integers(0, 2**32 - 2))
def test_the_same_seed_chooses_the_same_tokens(seed: int) -> None:
    row = np.linspace(-1, 1, 50)
    first, second = Sampler(Sampling(seed=seed)), Sampler(Sampling(seed=seed))
    assert [first.sample(row) for _ in range(5)] == [second.sample(row) for _ in range(5)]


@pytest.mark.parametrize(
    ("given", "meant"),
    [(2**33, 0), (2**33 + 7, 7), (-2, 2**32 - 2), (2**64 - 2, 2**32 - 2), (2**32 - 2, 2**32 - 2), (-(2**63), 0),
     (None, None), (-1, None), (2**32 - 1, None), (2**64 - 1, None)],
)  # fmt: skip
def test_the_low_bits_of_a_seed_count(given: int | None, meant: int | None) -> None:
    assert Sampling(seed=given).seed == meant
    with Llama(_DEMO, n_ctx=64, seed=given) as llama:
        served: Any = SimpleNamespace(model=llama.model)
        assert sampler_of(served, {"seed": given}).sampling.seed == meant
        following = None if meant is None else (meant + 1) % (2**32 - 1)
        assert sampler_of(served, {"seed": given}, 1).sampling.seed == following
        assert llama._seed == meant
        llama.set_seed(1)
        llama.set_seed(-1 if given is None else given)
        assert llama._seed == meant
        texts = {
            llama("a", seed=number, temperature=2.0, max_tokens=12)["choices"][0]["text"]
            for number in (given, meant, given)
        }
        assert (len(texts) == 1) == (meant is not None)


def test_without_a_seed_two_samplers_differ_and_say_their_seed() -> None:
    first, second = Sampler(Sampling()), Sampler(Sampling())
    assert first.seed != second.seed
    row = np.zeros(1000)
    again = Sampler(Sampling(seed=first.seed))
    assert [first.sample(row) for _ in range(4)] == [again.sample(row) for _ in range(4)]


wild = st.lists(st.floats(width=32), min_size=1, max_size=30)
any_settings = st.builds(
    Sampling,
    temperature=st.floats(-1, 3),
    top_k=st.integers(-1, 40),
    top_p=st.floats(0, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0, 1),
    top_n_sigma=st.floats(-1, 3),
    xtc_probability=st.floats(0, 1),
    xtc_threshold=st.floats(0, 1),
    dynatemp_range=st.floats(0, 2),
    dynatemp_exponent=st.floats(0, 3),
    repeat_penalty=st.floats(1e-30, 1e30),
    frequency_penalty=st.floats(allow_nan=False, allow_infinity=False),
    presence_penalty=st.floats(allow_nan=False, allow_infinity=False),
    penalty_last_n=st.integers(-1, 10),
    dry_multiplier=st.floats(0, 1e300),
    dry_allowed_length=st.integers(0, 3),
    dry_last_n=st.integers(-1, 10),
    mirostat=st.sampled_from([0, 0, 0, 1, 2]),
    mirostat_tau=st.floats(0, 1e6),
    mirostat_eta=st.floats(0, 1e6),
    adaptive_target=st.floats(-1, 1),
    logit_bias=st.dictionaries(st.integers(0, 0), st.floats(-10, 10) | st.just(-math.inf), max_size=1),
    samplers=st.permutations("edskypmxt").map("".join),
    min_keep=st.integers(0, 5),
    seed=st.integers(0, 9),
)


@given(wild, any_settings, st.lists(st.integers(0, 40), max_size=20))
def test_any_logits_and_settings_give_a_token_that_may_be_chosen(
    row: list[float], sampling: Sampling, history: list[int]
) -> None:
    sampler = Sampler(sampling, len(row), lambda token: "\n" if token == 3 else "x")
    for _ in range(3):
        try:
            token = sampler.sample(row, history)
        except ModelError:
            allowed = [value for value in row[bool(sampling.logit_bias) :] if value > -math.inf]
            assert not allowed
            continue
        assert 0 <= token < len(row)
        assert row[token] > -math.inf
        assert token or sampling.logit_bias.get(0) != -math.inf


@pytest.mark.parametrize("row", [[math.nan] * 3, [-math.inf] * 3, [math.nan, -math.inf, math.nan]])
def test_no_usable_logit_is_an_error(row: list[float]) -> None:
    with pytest.raises(ModelError, match="every logit is NaN or -inf"):
        Sampler(Sampling(temperature=0)).sample(row)


def test_an_infinite_logit_is_chosen() -> None:
    assert Sampler(Sampling(seed=1)).sample([5.0, math.inf, math.nan, 7.0]) == 1


def test_logit_bias_adds_and_forbids() -> None:
    assert Sampler(Sampling(temperature=0, logit_bias={2: 10})).sample([1.0, 2.0, 0.0]) == 2
    assert Sampler(Sampling(temperature=0, logit_bias={1: -math.inf})).sample([1.0, 2.0, 0.0]) == 0
    with pytest.raises(ValueError, match="names token 9; expected ids below 3"):
        Sampler(Sampling(logit_bias={9: 1}), vocab_size=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": math.nan}, "temperature is nan; expected a finite number"),
        ({"temperature": "hot"}, "temperature is 'hot'; expected a number"),
        ({"top_p": 1.5}, "top_p is 1.5; expected 0 to 1"),
        ({"top_k": 2.5}, "top_k is 2.5; expected a whole number"),
        ({"repeat_penalty": 0}, "repeat_penalty is 0.0; expected a number above 0"),
        ({"mirostat": 3}, "mirostat is 3; expected 0 .off., 1 or 2"),
        ({"seed": 2**64}, "seed is 18446744073709551616; expected a number of up to 64 bits"),
        ({"seed": -(2**63) - 1}, "expected a number of up to 64 bits, or None or -1 for a random one"),
        ({"seed": 1.5}, "seed is 1.5; expected a whole number"),
        ({"samplers": "top_k;magic"}, "samplers names 'magic'; expected some of penalties"),
        ({"logit_bias": {-4: 1.0}}, "logit_bias names token -4"),
        ({"logit_bias": [1, 2]}, "logit_bias is a list"),
        ({"penalty_last_n": -2}, "penalty_last_n is -2; expected -1 or more"),
        ({"dry_sequence_breakers": ("",)}, "expected texts that are not empty"),
    ],
)
def test_wrong_settings_are_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)  # type: ignore[arg-type]


def test_a_file_recommends_and_the_caller_decides() -> None:
    metadata = {"general.sampling.temp": 0.3, "general.sampling.top_k": 7, "general.sampling.top_p": 40.0}
    sampling = Sampling.for_model(metadata, top_k=9)
    assert (sampling.temperature, sampling.top_k, sampling.top_p) == (0.3, 9, 0.95)


@given(rows, st.integers(0, 5))
def test_log_probabilities_are_of_the_whole_vocabulary(row: list[float], top: int) -> None:
    chances = reference.softmax(list(enumerate(row)))
    result = log_probability(row, len(row) - 1, top)
    assert result.log_probability == pytest.approx(math.log(chances[-1]), rel=1e-5, abs=3e-6)
    best = reference.descending(list(enumerate(row)))[:top]
    assert [token for token, _ in result.top] == [token for token, _ in best]
    assert [value for _, value in result.top] == pytest.approx(
        [math.log(chances[token]) for token, _ in best], rel=1e-5, abs=3e-6
    )
