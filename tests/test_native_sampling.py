"""The native selection functions against their NumPy definitions."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamacpu import _native

pytestmark = pytest.mark.instruction_set

Logits = npt.NDArray[np.float32]

values = st.one_of(st.floats(-30, 30, width=32), st.sampled_from([-np.inf, np.nan, 0.0, -0.0, 1.0]))
rows = st.lists(values, min_size=1, max_size=300).map(lambda numbers: np.array(numbers, dtype=np.float32))


def without_nan(logits: Logits) -> Logits:
    return np.where(np.isnan(logits), np.float32(-np.inf), logits)


@settings(deadline=None)
@given(rows, st.integers(0, 310))
def test_top_k_is_a_stable_sort_cut_off(logits: Logits, k: int) -> None:
    expected = np.argsort(-without_nan(logits), kind="stable")[:k]
    ids, chosen = _native.top_k(logits, k)
    assert ids.dtype == np.int64
    assert chosen.dtype == np.float32
    # Only a token that cannot be chosen at all may stand for another one.
    finite = np.isfinite(without_nan(logits)[expected])
    np.testing.assert_array_equal(ids[finite], expected[finite])
    np.testing.assert_array_equal(chosen, without_nan(logits)[expected])


@settings(deadline=None)
@given(rows)
def test_argmax_is_the_first_of_the_largest(logits: Logits) -> None:
    if np.isnan(logits).all():
        with pytest.raises(ValueError, match="no logit is a number"):
            _native.argmax(logits)
    else:
        assert _native.argmax(logits) == np.flatnonzero(logits == np.nanmax(logits))[0]


@settings(deadline=None)
@given(rows)
def test_the_softmax_is_that_of_the_definition(logits: Logits) -> None:
    found = _native.distribution(logits)
    logs = _native.log_softmax(logits)
    if not np.isfinite(logits).any():
        assert found is None
        assert logs is None
        return
    assert found is not None
    assert logs is not None
    with np.errstate(divide="ignore"):
        exact = without_nan(logits).astype(np.float64)
        log_sum = np.log(np.exp(exact).sum())
        chances = np.exp(exact - log_sum)
        surprise = -np.log(chances, where=chances > 0, out=np.zeros_like(chances))
    assert found == pytest.approx((log_sum, (chances * surprise).sum()), abs=1e-5)
    np.testing.assert_allclose(logs, exact - log_sum, atol=1e-5)


def test_a_row_that_is_not_contiguous_is_refused() -> None:
    every_second = np.zeros(10, dtype=np.float32)[::2]
    for function in (_native.argmax, _native.distribution, _native.log_softmax):
        with pytest.raises(ValueError, match="contiguous"):
            function(every_second)


def test_long_rows_give_the_same_answers() -> None:
    logits = np.random.default_rng(5).normal(size=1 << 20).astype(np.float32)
    ids, chosen = _native.top_k(logits, 5)
    np.testing.assert_array_equal(ids, np.argsort(-logits, kind="stable")[:5])
    np.testing.assert_array_equal(chosen, logits[ids])
    assert _native.argmax(logits) == ids[0]
