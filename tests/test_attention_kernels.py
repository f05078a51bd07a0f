"""Attention on NumPy arrays, against its definition in 64-bit floats on every instruction set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llamacpu import kernels
from reference_llama import softmax as exact_softmax
from test_kernels import ISAS, Floats, normal


def exact_attention(queries: Floats, keys: Floats, values: Floats, scale: float) -> NDArray[np.float64]:
    group = queries.shape[1] // keys.shape[1]
    scores = np.einsum("nhd,mhd->hnm", queries.astype(np.float64), np.repeat(keys, group, 1)) * scale
    visible = np.tri(len(queries), len(keys), len(keys) - len(queries), dtype=bool)
    return np.einsum("hnm,mhd->nhd", exact_softmax(np.where(visible, scores, -np.inf)), np.repeat(values, group, 1))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("kv_type", "limit"), [("f32", 1e-11), ("f16", 1e-6), ("i16", 1e-6), ("q8_0", 1e-3)])
@pytest.mark.parametrize(("new", "tokens"), [(1, 1), (1, 200), (64, 64), (70, 150), (3, 129)])
def test_attention(isa: str, kv_type: Any, limit: float, new: int, tokens: int) -> None:
    queries, keys, values = normal(new, 6, 32), normal(tokens, 2, 32, seed=1), normal(tokens, 2, 64, seed=2)
    got = kernels.attention(queries, keys, values, scale=0.3, kv_type=kv_type, isa=isa, threads=2)
    exact = exact_attention(queries, keys, values, 0.3)
    assert ((got - exact) ** 2).sum() / (exact**2).sum() < limit
    assert np.array_equal(got, kernels.attention(queries, keys, values, scale=0.3, kv_type=kv_type, isa="scalar"))
    last = kernels.attention(queries[-1:].copy(), keys, values, scale=0.3, kv_type=kv_type, isa=isa)
    assert np.array_equal(got[-1:], last)


def seen_attention(queries: Any, keys: Any, values: Any, seen: Any, cap: Any, sinks: Any, bias: Any) -> Any:
    """Attention in float64 where `seen[query, key]`."""
    group = queries.shape[1] // keys.shape[1]
    k, v = (np.repeat(x.astype(np.float64), group, axis=1) for x in (keys, values))
    scores = 0.3 * np.einsum("nhd,mhd->hnm", queries.astype(np.float64), k)
    if cap is not None:
        scores = cap * np.tanh(scores / cap)
    if bias is not None:
        scores = scores + bias
    weights = np.where(seen, np.exp(scores), 0.0)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(sinks.astype(np.float64))[:, None, None]
    return np.einsum("hnm,mhd->nhd", weights / total, v)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("visible", [{}, {"causal": False}, {"window": 20}, {"chunk": 48}])
@pytest.mark.parametrize("extra", [(None, False, False), (1.5, False, False), (None, True, False), (0.8, True, True)])
def test_attention_that_is_not_plain(isa: str, visible: dict[str, Any], extra: tuple[Any, bool, bool]) -> None:
    n, m, heads = 30, 100, 4
    queries, keys, values = normal(n, heads, 24), normal(m, 2, 24, seed=1), normal(m, 2, 40, seed=2)
    cap, sinks, bias = extra[0], normal(heads, seed=3) * 3 if extra[1] else None, normal(heads, n, m, seed=4)
    bias = bias if extra[2] else None
    i, j = np.arange(m - n, m)[:, None], np.arange(m)[None, :]
    seen = (j <= i) | (visible.get("causal") is False)
    seen &= i - j < visible.get("window", m)
    seen &= i // visible.get("chunk", m) == j // visible.get("chunk", m)
    got = kernels.attention(
        queries, keys, values, scale=0.3, soft_cap=cap, sinks=sinks, bias=bias, isa=isa, threads=2, **visible
    )
    np.testing.assert_allclose(got, seen_attention(queries, keys, values, seen, cap, sinks, bias), rtol=0, atol=3e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("causal", [True, False])
def test_attention_with_linear_biases(isa: str, causal: bool) -> None:
    n, m, heads = 30, 700, 4
    queries, keys, values = normal(n, heads, 24), normal(m, 2, 24, seed=1), normal(m, 2, 40, seed=2)
    slopes = np.array([0.25, 0.0625, 2.0**-8, -0.01], dtype=np.float32)
    i, j = np.arange(m - n, m)[:, None], np.arange(m)[None, :]
    bias = -slopes.astype(np.float64)[:, None, None] * np.abs(i - j)
    seen = (j <= i) | (not causal)
    got = kernels.attention(queries, keys, values, scale=0.3, causal=causal, slopes=slopes, isa=isa, threads=2)
    exact = seen_attention(queries, keys, values, seen, None, None, bias)
    np.testing.assert_allclose(got, exact, rtol=0, atol=3e-6)
    with pytest.raises(ValueError, match="slopes"):
        kernels.attention(queries, keys, values, slopes=slopes[:3])


@pytest.mark.parametrize("isa", ISAS)
def test_values_may_be_the_beginning_of_keys(isa: str) -> None:
    queries, keys = normal(3, 16, 576), normal(90, 1, 576, seed=1)
    got = kernels.attention(queries, keys, None, value_size=512, isa=isa, threads=2)
    separate = kernels.attention(queries, keys, keys[..., :512].copy(), isa="scalar")
    assert np.array_equal(got, separate)
