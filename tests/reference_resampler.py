"""The resampler of MiniCPM-V in NumPy, in float64, by its definition: learned queries attend once to all patches."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from reference_functions import softmax

Array = NDArray[np.float64]
HEAD = 128


def tensors(random: Any, states: int, width: int, queries: int) -> dict[str, Any]:
    """Its weights, for states of that width."""
    found = {"resampler.query": random.standard_normal((queries, width))}
    found["resampler.kv.weight"] = random.standard_normal((width, states)) / states**0.5
    for part in ("q", "kv", "post"):
        found[f"resampler.ln_{part}.weight"] = 1 + random.standard_normal(width) / 8
        found[f"resampler.ln_{part}.bias"] = random.standard_normal(width) / 8
    for part in ("q", "k", "v", "out"):
        found[f"resampler.attn.{part}.weight"] = random.standard_normal((width, width)) / width**0.5
        found[f"resampler.attn.{part}.bias"] = random.standard_normal(width) / 4
    return found


def positions(height: int, across: int, width: int) -> Array:
    """Sines and cosines of the column, then of the row: [height * across, width]."""
    frequencies = 10000.0 ** -(np.arange(width // 4) * 4 / width)
    rows, columns = (place.ravel()[:, None] * frequencies for place in np.mgrid[:height, :across])
    return np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], 1)


def resampled(encoder: Any, states: Array, height: int, across: int) -> Array:
    """The rows of one tile, from the states of its patches."""
    width = encoder.config.output_length
    queries = encoder.linear(encoder.norm(encoder.values["resampler.query"], "resampler.ln_q"), "resampler.attn.q")
    inputs = encoder.norm(encoder.linear(states, "resampler.kv"), "resampler.ln_kv")
    keys = encoder.linear(inputs + positions(height, across, width), "resampler.attn.k")
    values = encoder.linear(inputs, "resampler.attn.v")
    q, k, v = (x.reshape(len(x), -1, HEAD) for x in (queries, keys, values))
    weights = softmax(np.einsum("qhd,khd->hqk", q, k) / HEAD**0.5)
    mixed = np.einsum("hqk,khd->qhd", weights, v).reshape(len(q), -1)
    found: Array = encoder.norm(encoder.linear(mixed, "resampler.attn.out"), "resampler.ln_post")
    return found
