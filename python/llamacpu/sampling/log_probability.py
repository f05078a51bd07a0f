"""The log-probability that the model gave a token, before any sampling setting changed it."""

from dataclasses import dataclass

import numpy.typing as npt

from llamacpu import _native
from llamacpu.sampling.candidates import from_logits


@dataclass(frozen=True)
class TokenLogProbability:
    """A chosen token with its natural log-probability, and the most likely tokens as (id, log-probability)."""

    id: int
    log_probability: float
    top: tuple[tuple[int, float], ...] = ()


def log_probability(logits: npt.ArrayLike, token: int, top: int = 0) -> TokenLogProbability:
    """The log-probability of a token, and of the `top` most likely ones, under the softmax of all logits.

    logits: float[vocabulary]. An impossible token has -inf. Ties go to the lower id.
    The error is about 1e-6. Raises ModelError if every logit is NaN or -inf, ValueError for a token outside the
    vocabulary.
    """
    candidates = from_logits(logits)
    if not 0 <= token < len(candidates):
        raise ValueError(f"token {token} is outside the vocabulary; expected 0 to {len(candidates) - 1}")
    found = _native.distribution(candidates.logits)
    assert found is not None, "candidates have a finite logit and none that is +inf"
    total, _ = found
    best = candidates.largest(top) if top > 0 else candidates.first(0)
    pairs = tuple((best.token(place), float(best.logits[place]) - total) for place in range(len(best)))
    return TokenLogProbability(token, float(candidates.logits[token]) - total, pairs)
