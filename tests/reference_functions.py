"""Functions of the NumPy reference: activations, softmax, rotations, what a token sees."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def visible(count: int, window: int, chunk: int, causal: bool = True) -> NDArray[np.bool_]:
    """Whether a token (row) sees another one (column)."""
    query, key = np.arange(count)[:, None], np.arange(count)[None, :]
    if not causal:
        return np.abs(query - key) <= (window // 2 if window else count)
    seen = key <= query
    if window:
        seen &= query - key < window
    if chunk:
        seen &= query // chunk == key // chunk
    return seen


def gelu(x: Array) -> Array:
    """x times the share of the normal distribution below x."""
    return x * np.vectorize(lambda x: math.erfc(-x / math.sqrt(2)) / 2)(x)


ACTIVATIONS = {
    "silu": lambda x: silu(x),
    "gelu": gelu,
    "gelu_tanh": lambda x: x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "tanh": np.tanh,
    "relu_squared": lambda x: np.maximum(x, 0) ** 2,
}


def alibi_slopes(heads: int, largest: float) -> Array:
    """Press et al. 2021 (https://arxiv.org/abs/2108.12409), section 3, and their code for other numbers of heads."""
    if not largest:
        return np.zeros(heads)
    count = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-largest * index / count) for index in range(1, count + 1)]
    return np.array(slopes + [2 ** (-largest * index / (2 * count)) for index in range(1, 2 * count, 2)])[:heads]


def near_share(scores: Array, before: NDArray[np.integer[Any]], expert: int) -> float:
    """The softmax of an expert's score, over those that are within 2 % and not chosen before (arXiv:2409.12136)."""
    best = scores[expert]
    near = (best - scores) / np.maximum(np.abs(scores), best) <= 0.02
    near[before] = False
    return float(1 / np.exp(scores[near] - best).sum())


def soft_cap(x: Array, cap: float) -> Array:
    """x where it is small, never more than the cap."""
    return cap * np.tanh(x / cap) if cap else x


def silu(x: Array) -> Array:
    """x times the logistic function of x."""
    return x / (1 + np.exp(-x))


def softmax(x: Array) -> Array:
    """Along the last axis."""
    powers = np.exp(x - x.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def rotate(x: Array, cos: Array, sin: Array, style: str) -> Array:
    """Turns pairs of elements of x[tokens, heads, size], neighbours or half the size apart; the others stay."""
    pairs = cos.shape[-1]
    first = slice(0, 2 * pairs, 2) if style == "interleaved" else slice(0, pairs)
    second = slice(1, 2 * pairs, 2) if style == "interleaved" else slice(pairs, 2 * pairs)
    a, b = x[..., first], x[..., second]
    cos, sin = cos[:, None], sin[:, None]
    turned = x.copy()
    turned[..., first] = a * cos - b * sin
    turned[..., second] = a * sin + b * cos
    return turned
