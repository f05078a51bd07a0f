"""The logits of random tokens, in one step and in two."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from llamacpu import Model


def logits_of_any_split(
    model: Model, count: int, seed: int, data: st.DataObject
) -> tuple[list[int], NDArray[np.float32]]:
    """So many random tokens and their logits, which are the same wherever the tokens are divided into two steps."""
    tokens: list[int] = np.random.default_rng(seed).integers(0, model.vocab_size, count).tolist()
    got: NDArray[Any] = model.session(kv_type="f32").forward(tokens, logits="all")
    split = data.draw(st.integers(0, count - 1))
    session = model.session(kv_type="f32")
    if split:
        session.forward(tokens[:split], logits="none")
    assert np.array_equal(session.forward(tokens[split:], logits="all"), got[split:])
    return tokens, got
