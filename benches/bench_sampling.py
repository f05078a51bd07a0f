"""The time to sample a token from the vocabulary of Llama 3 (128256 logits)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from llamacpu.sampling import Sampler, Sampling, log_probability

VOCABULARY = 128256

SETTINGS = {
    "greedy": Sampling(temperature=0),
    "default": Sampling(seed=1),
    "no top-k": Sampling(seed=1, top_k=0),
    "temperature only": Sampling(seed=1, top_k=0, top_p=1, min_p=0),
    "penalties": Sampling(seed=1, repeat_penalty=1.1, presence_penalty=0.1),
    "penalties, DRY, XTC": Sampling(seed=1, repeat_penalty=1.1, dry_multiplier=0.8, xtc_probability=0.5),
    "penalties over 100000 tokens": Sampling(seed=1, repeat_penalty=1.1, penalty_last_n=-1),
    "DRY over 100000 tokens": Sampling(seed=1, dry_multiplier=0.8, dry_last_n=-1),
    "top-n-sigma": Sampling(seed=1, top_n_sigma=1.0),
    "typical, all tokens": Sampling(seed=1, top_k=0, typical_p=0.9),
    "mirostat 2": Sampling(seed=1, mirostat=2),
}


@pytest.fixture(scope="module")
def logits() -> np.ndarray:
    """Plausible logits: a few hundred likely tokens above a broad background."""
    random = np.random.default_rng(1)
    row = random.standard_normal(VOCABULARY).astype(np.float32) * 2 - 4
    row[random.integers(0, VOCABULARY, 300)] += random.exponential(4, 300).astype(np.float32)
    return row


@pytest.fixture(scope="module")
def history() -> np.ndarray:
    return np.random.default_rng(2).integers(0, VOCABULARY, 100_000)


@pytest.mark.parametrize("name", SETTINGS)
def test_sample(benchmark: Any, name: str, logits: np.ndarray, history: np.ndarray) -> None:
    sampler = Sampler(SETTINGS[name], VOCABULARY, lambda token: "word")
    token = benchmark(sampler.sample, logits, history)
    assert 0 <= token < VOCABULARY


def test_log_probabilities(benchmark: Any, logits: np.ndarray) -> None:
    entry = benchmark(log_probability, logits, 17, 20)
    assert entry.log_probability < 0
